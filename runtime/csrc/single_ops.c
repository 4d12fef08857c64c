/* Single operations of the forward pass, for tests, verify and doctor. They are slow, since they
 * allocate on every call. */
#include <string.h>

#include "fpenv.h"
#include "internal.h"

static int usable(int *isa) {
    if (*isa == TP_ISA_BEST) *isa = tp_best_isa();
    return tp_isa_available(*isa);
}

int tp_quantize_activations(int isa, const float *x, int64_t n, int64_t cols, int8_t *q, float *s,
                            int32_t *sum_q) {
    if (!x || !q || !s || !sum_q || n < 1 || cols < 1 || cols > TP_MAX_COLS) return TP_ERR_ARGUMENT;
    if (!usable(&isa)) return TP_ERR_ISA;
    const tp_kernel *k = tp_kernel_best(TP_OP_QUANTIZE, TP_LAYOUT_F32, isa);
    const tp_fpenv before = tp_fpenv_enter();
    for (int64_t t = 0; t < n; t++) k->quantize(x + t * cols, cols, q + t * cols, &s[t], &sum_q[t]);
    tp_fpenv_leave(before);
    return TP_OK;
}

static TP_NOINLINE int matmul_int(int index, const tp_tensor *w, const int8_t *q, int64_t n,
                                  int32_t *out) {
    const tp_kernel *k = tp_kernel_at(index);
    if (!k || !(k->matvec || k->matmul) || !q || !out || n < 1) return TP_ERR_ARGUMENT;
    int status = tp_tensor_check(w);
    if (status) return status;
    if (!tp_is_ternary(w->layout)) return TP_ERR_LAYOUT;
    if (!tp_cpu_has(k->isa)) return TP_ERR_ISA;
    const tp_kernel_plan plan = {
        k, k->layout == TP_LAYOUT_U8 ? tp_kernel_best(TP_OP_UNPACK, w->layout, k->isa) : NULL};
    if (!plan.unpack && tp_kernel_plan_for(k->op, w->layout, k->isa).kernel->layout != k->layout)
        return TP_ERR_LAYOUT;
    const int64_t padded = tp_padded_cols(w->cols);
    const size_t ordered =
        k->activation_order ? k->activation_order->bytes(k->activation_order, n, w->cols) : 0;
    const size_t scratch_bytes = tp_linear_scratch(plan, w->rows, w->cols, n);
    tp_pool *pool = tp_pool_new(1, &status);
    int32_t *sum = tp_alloc((size_t)n, sizeof *sum);
    tp_acts8 acts = {.ordered = tp_alloc(1, ordered)};
    uint8_t *scratch = tp_alloc(1, scratch_bytes);
    int8_t *copy = tp_alloc((size_t)n, (size_t)padded);
    if (pool && sum && acts.ordered && scratch && copy) {
        for (int64_t t = 0; t < n; t++) {
            memcpy(copy + t * padded, q + t * w->cols, (size_t)w->cols);
            for (int64_t i = 0; i < w->cols; i++) sum[t] += q[t * w->cols + i];
        }
        tp_linear_job job = {.w = w, .plan = plan, .sums = out};
        acts.q = copy;
        acts.sum = sum;
        tp_linears_run(pool, NULL, &job, 1, &acts, n, scratch, scratch_bytes);
    } else status = TP_ERR_MEMORY;
    tp_free(copy);
    tp_free(scratch);
    tp_free(acts.ordered);
    tp_free(sum);
    tp_pool_free(pool);
    return status;
}

int tp_kernel_matmul_int(int index, const tp_tensor *w, const int8_t *q, int64_t n, int32_t *out) {
    const tp_fpenv before = tp_fpenv_enter(); /* comparing scales with 0 is float arithmetic */
    const int status = matmul_int(index, w, q, n, out);
    tp_fpenv_leave(before);
    return status;
}

int tp_head_matmul(int isa, const tp_tensor *w, const float *x, int64_t n, float *out) {
    if (!x || !out || n < 1) return TP_ERR_ARGUMENT;
    int status = tp_tensor_check(w);
    if (status) return status;
    if (!usable(&isa)) return TP_ERR_ISA;
    const int ternary = tp_is_ternary(w->layout), whole = tp_takes_acts16(w->layout);
    const tp_kernel *head = tp_kernel_best(TP_OP_LM_HEAD, ternary ? TP_LAYOUT_F32 : w->layout, isa);
    if (!head) return TP_ERR_LAYOUT;
    const size_t bytes = ternary ? tp_float_scratch(w->rows, w->cols)
                         : whole ? tp_acts16_bytes(n, w->cols)
                                 : 0;
    tp_pool *pool = tp_pool_new(1, &status);
    void *scratch = tp_alloc(1, bytes);
    const tp_fpenv before = tp_fpenv_enter();
    if (!pool || !scratch) status = TP_ERR_MEMORY;
    else if (ternary)
        tp_linear_float_run(pool, tp_kernel_plan_for(TP_OP_DEQUANTIZE, w->layout, isa),
                            tp_kernel_plan_for(TP_OP_MATVEC_F32, w->layout, isa), head, w, x, n,
                            scratch, bytes, out);
    else
        tp_head_run(pool, head, tp_kernel_best(TP_OP_QUANTIZE16, TP_LAYOUT_F32, isa), w, x, n,
                    whole ? scratch : NULL, out);
    tp_fpenv_leave(before);
    tp_free(scratch);
    tp_pool_free(pool);
    return status;
}
