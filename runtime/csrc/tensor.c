/* Single rows of tensors as floats. */
#include <string.h>

#include "fpenv.h"
#include "internal.h"
#include "kernels/quants.h"

static int ternary_row(const tp_tensor *w, int64_t row, float *out) {
    const tp_ternary parts = tp_ternary_of(w);
    void *scratch = tp_alloc(1, tp_dequantize_scratch(w->cols));
    if (!scratch) return TP_ERR_MEMORY;
    tp_dequantize_row(tp_kernel_plan_for(TP_OP_DEQUANTIZE, w->layout, TP_ISA_SCALAR), &parts, row,
                      out, scratch);
    tp_free(scratch);
    return TP_OK;
}

/* Block by block, so that the compiler vectorises them: `verify` decodes whole tables. */
static void q8_0_floats(const uint8_t *restrict block, int64_t cols, float *restrict out) {
    for (int64_t c = 0; c < cols; c += 32, block += Q8_0_BYTES) {
        const float scale = tp_f16_float(tp_load_u16(block));
        for (int i = 0; i < 32; i++) out[c + i] = scale * (float)(int8_t)block[2 + i];
    }
}

static void q6_k_floats(const uint8_t *restrict block, int64_t cols, float *restrict out) {
    for (int64_t c = 0; c < cols; c += 256, block += Q6_K_BYTES) {
        const float d = tp_f16_float(tp_load_u16(block + Q6_K_D));
        for (int run = 0; run < 8; run++) { /* of 32 values: see q6_k_code */
            const uint8_t *low = block + run / 4 * 64 + run % 2 * 32;
            const uint8_t *high = block + Q6_K_QH + run / 4 * 32;
            const int shift = run % 4 / 2 * 4, pair = run % 4 * 2;
            for (int half = 0; half < 2; half++) {
                const float scale = d * (float)(int8_t)block[Q6_K_SCALES + 2 * run + half];
                for (int i = 16 * half; i < 16 * half + 16; i++) {
                    const int code = (low[i] >> shift & 15) | (high[i] >> pair & 3) << 4;
                    out[c + 32 * run + i] = scale * (float)(code - 32);
                }
            }
        }
    }
}

static void q4_k_floats(const uint8_t *restrict block, int64_t cols, float *restrict out) {
    for (int64_t c = 0; c < cols; c += 256, block += Q4_K_BYTES) {
        const float d = tp_f16_float(tp_load_u16(block));
        const float dmin = tp_f16_float(tp_load_u16(block + Q4_K_DMIN));
        uint8_t scales[8], offsets[8];
        q4_k_scales(block, scales, offsets);
        for (int run = 0; run < 8; run++) { /* of 32 values: see q4_k_code */
            const float scale = d * (float)scales[run], offset = dmin * (float)offsets[run];
            for (int i = 0; i < 32; i++) {
                const int code = block[Q4_K_CODES + run / 2 * 32 + i] >> run % 2 * 4 & 15;
                out[c + 32 * run + i] = scale * (float)code - offset;
            }
        }
    }
}

static TP_NOINLINE int tensor_row(const tp_tensor *w, int64_t row, float *out) {
    const int status = tp_tensor_check(w);
    if (status) return status;
    if (!out || row < 0 || row >= w->rows) return TP_ERR_ARGUMENT;
    if (tp_is_ternary(w->layout)) return ternary_row(w, row, out);
    switch ((tp_layout)w->layout) {
        case TP_LAYOUT_F32:
            memcpy(out, (const float *)w->data + row * w->cols, (size_t)w->cols * 4);
            return TP_OK;
        case TP_LAYOUT_F16:
            for (int64_t i = 0; i < w->cols; i++)
                out[i] = tp_f16_float(((const uint16_t *)w->data)[row * w->cols + i]);
            return TP_OK;
        case TP_LAYOUT_BF16:
            for (int64_t i = 0; i < w->cols; i++)
                out[i] = tp_bf16_float(((const uint16_t *)w->data)[row * w->cols + i]);
            return TP_OK;
        case TP_LAYOUT_Q8_0: q8_0_floats(q8_0_row(w, row), w->cols, out); return TP_OK;
        case TP_LAYOUT_Q6_K: q6_k_floats(q6_k_row(w, row), w->cols, out); return TP_OK;
        case TP_LAYOUT_Q4_K: q4_k_floats(q4_k_row(w, row), w->cols, out); return TP_OK;
        default: return TP_ERR_LAYOUT;
    }
}

int tp_tensor_row(const tp_tensor *w, int64_t row, float *out) {
    const tp_fpenv before = tp_fpenv_enter();
    const int status = tensor_row(w, row, out);
    tp_fpenv_leave(before);
    return status;
}
