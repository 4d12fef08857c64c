/* Matrix products of float activations over the pool. Ternary linears turn a panel of rows into
 * floats and multiply it as the head does, or take the codes directly. The head of a quantised
 * layout takes activations of 16 bits. */
#include "internal.h"

/* ---- ternary linears ---- */

typedef struct float_linear {
    tp_kernel_plan dequantize, matvec_f32;
    int direct;
    const tp_kernel *head;
    const tp_tensor *w;
    tp_ternary parts;
    const float *x;
    int64_t n, grain;
    uint8_t *scratch;
    size_t scratch_bytes;
    float *y;
} float_linear;

/* Rows per panel, which stays in the cache until it is read. */
static int64_t float_grain(int64_t cols) {
    const int64_t grain = 98304 / cols / 4 * 4;
    return grain < 8 ? 8 : grain > 64 ? 64 : grain; /* all tokens are read for each panel */
}

static size_t float_panel(int64_t rows, int64_t cols) {
    const int64_t grain = float_grain(cols);
    return (size_t)tp_round64((rows < grain ? rows : grain) * cols * (int64_t)sizeof(float));
}

size_t tp_float_scratch(int64_t rows, int64_t cols) {
    return float_panel(rows, cols) + tp_dequantize_scratch(cols);
}

int tp_matvec_f32_fits(tp_kernel_plan matvec_f32, const tp_tensor *w, int64_t n) {
    const int64_t width = w->cols / tp_ternary_of(w).col_blocks;
    return n == 1 && width % (matvec_f32.unpack ? 16 : 128) == 0;
}

static int has_scales_beside(int layout) {
    return layout == TP_LAYOUT_PQ2_0 || layout == TP_LAYOUT_PTQ1_0;
}

/* Scales, and then the codes if they are unpacked, lie where a panel of floats would. */
static void direct_rows(const float_linear *l, int64_t row0, int64_t rows, float *scales,
                        float *y) {
    const tp_ternary *t = &l->parts;
    const int64_t cols = l->w->cols;
    if (has_scales_beside(l->matvec_f32.kernel->layout)) scales[0] = t->body.scale;
    else
        for (int64_t r = 0; r < rows; r++)
            tp_scales_of_row(t, row0 + r, scales + r * t->col_blocks);
    if (!l->matvec_f32.unpack) {
        const int64_t row_bytes = (int64_t)tp_body_nbytes(l->matvec_f32.kernel->layout, 1, cols);
        l->matvec_f32.kernel->matvec_f32((const uint8_t *)t->body.data + row0 * row_bytes,
                                         row_bytes, rows, cols, scales, t->col_blocks, l->x, y);
        return;
    }
    uint8_t *codes = (uint8_t *)(scales + rows * t->col_blocks);
    tp_unpack_rows(l->matvec_f32.unpack, t, row0, row0 + rows, codes, cols);
    l->matvec_f32.kernel->matvec_f32(codes, cols, rows, cols, scales, t->col_blocks, l->x, y);
}

static void float_chunk(void *ctx, int thread, int64_t begin, int64_t end) {
    const float_linear *l = ctx;
    const int64_t cols = l->w->cols, rows = l->w->rows;
    uint8_t *scratch = l->scratch + (size_t)thread * l->scratch_bytes;
    float *panel = (float *)(void *)scratch;
    for (int64_t i = begin; i < end; i++) {
        const int64_t row0 = i * l->grain, count = row0 + l->grain < rows ? l->grain : rows - row0;
        if (l->direct) {
            direct_rows(l, row0, count, panel, l->y + row0);
            continue;
        }
        for (int64_t r = 0; r < count; r++)
            tp_dequantize_row(l->dequantize, &l->parts, row0 + r, panel + r * cols,
                              scratch + float_panel(rows, cols));
        const tp_tensor w = {.data = panel,
                             .rows = count,
                             .cols = cols,
                             .nbytes = (uint64_t)(count * cols) * sizeof(float),
                             .layout = TP_LAYOUT_F32};
        const tp_lm_head_acts acts = {.x = l->x};
        l->head->lm_head(&w, &acts, l->n, 0, count, l->y + row0, rows);
    }
}

void tp_linear_float_run(tp_pool *pool, tp_kernel_plan dequantize, tp_kernel_plan matvec_f32,
                         const tp_kernel *head_f32, const tp_tensor *w, const float *x, int64_t n,
                         uint8_t *scratch, size_t scratch_bytes, float *y) {
    float_linear l = {dequantize,
                      matvec_f32,
                      tp_matvec_f32_fits(matvec_f32, w, n),
                      head_f32,
                      w,
                      tp_ternary_of(w),
                      x,
                      n,
                      float_grain(w->cols),
                      scratch,
                      scratch_bytes,
                      y};
    tp_pool_run(pool, float_chunk, &l, (w->rows + l.grain - 1) / l.grain, 1);
}

/* ---- the head ---- */

size_t tp_acts16_bytes(int64_t n, int64_t cols) {
    const int64_t padded = tp_round64(cols), blocks = (cols + 255) / 256;
    return (size_t)(tp_round64(n * padded * 2) + tp_round64(n * padded) +
                    tp_round64(n * blocks * 4));
}

void tp_acts16_place(void *memory, int64_t n, int64_t cols, tp_lm_head_acts *out) {
    uint8_t *p = memory;
    out->padded = tp_round64(cols);
    out->blocks = (cols + 255) / 256;
    out->q = (int16_t *)(void *)p;
    out->bias = (int32_t *)(void *)(p + tp_round64(n * out->padded * 2));
    out->step =
        (float *)(void *)(p + tp_round64(n * out->padded * 2) + tp_round64(n * out->padded));
}

typedef struct head_job {
    const tp_kernel *head, *quantize16;
    const tp_tensor *w;
    tp_lm_head_acts acts;
    int64_t n;
    float *out;
} head_job;

static void quantize_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    const head_job *h = ctx;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        h->quantize16->quantize16(h->acts.x + t * h->w->cols, h->w->cols,
                                  h->acts.q + t * h->acts.padded, h->acts.step + t * h->acts.blocks,
                                  h->acts.bias + t * (h->acts.padded / 4));
}

static void head_rows(void *ctx, int thread, int64_t begin, int64_t end) {
    const head_job *h = ctx;
    (void)thread;
    h->head->lm_head(h->w, &h->acts, h->n, begin, end, h->out + begin, h->w->rows);
}

void tp_head_run(tp_pool *pool, const tp_kernel *head, const tp_kernel *quantize16,
                 const tp_tensor *w, const float *x, int64_t n, void *acts16, float *out) {
    head_job h = {head, quantize16, w, {.x = x}, n, out};
    if (acts16) {
        tp_acts16_place(acts16, n, w->cols, &h.acts);
        tp_pool_run(pool, quantize_tokens, &h, n, 1);
    }
    const int64_t grain = 32768 / (int64_t)(w->nbytes / (uint64_t)w->rows + 1) / 4 * 4;
    tp_pool_run(pool, head_rows, &h, w->rows,
                n > 1         ? 64
                : grain < 16  ? 16
                : grain > 256 ? 256
                              : grain);
}
