/* Ternary tensors by kernels. An operation that has no kernel for a layout unpacks it to plain
 * codes, one per byte (U8), and runs its kernel for those: the integers and the floats are the
 * same, only slower to get. The file also knows what a scale of 0 means, and packs and unpacks
 * whole tensors. */
#include <string.h>

#include "internal.h"

static int direct_layout(int layout) { return layout == TP_LAYOUT_T2 ? TP_LAYOUT_I2_S : layout; }

/* ---- plans ---- */

tp_kernel_plan tp_kernel_plan_for(tp_op op, int layout, int isa) {
    const tp_kernel_plan direct = {tp_kernel_best(op, direct_layout(layout), isa), NULL};
    if (!tp_is_ternary(layout)) return direct;
    const tp_kernel_plan unpacking = tp_unpacking_plan_for(op, layout, isa);
    /* Products of many tokens are worth a better instruction set, whatever unpacking costs. */
    const int better =
        direct.kernel && op == TP_OP_MATMUL && unpacking.kernel->isa > direct.kernel->isa;
    return direct.kernel && !better ? direct : unpacking;
}

tp_kernel_plan tp_unpacking_plan_for(tp_op op, int layout, int isa) {
    return (tp_kernel_plan){tp_kernel_best(op, TP_LAYOUT_U8, isa),
                            tp_kernel_best(TP_OP_UNPACK, layout, isa)};
}

/* ---- scales of rows ---- */

/* The first scale of a row that is not 0. */
static float row_scale_at(const tp_ternary *t, const uint8_t *at) {
    float scale = tp_scale_value(t, at);
    for (int64_t b = 1; b < t->col_blocks && scale == 0; b++)
        scale = tp_scale_value(t, at + b * t->block_bytes);
    return scale;
}
static float row_scale(const tp_ternary *t, int64_t row) {
    return row_scale_at(t, tp_scales_at(t, row));
}

/* Returns 1 if a row stores codes other than zero under scales of 0. Without memory to look, it
 * assumes so. */
static int row_nonzero_under_zero(const tp_ternary *t, int64_t row) {
    const int64_t cols = t->body.cols, width = cols / t->col_blocks;
    uint8_t *codes = tp_alloc(1, (size_t)cols);
    int nonzero = !codes;
    if (codes)
        tp_kernel_best(TP_OP_UNPACK, t->body.layout, TP_ISA_SCALAR)
            ->unpack(&t->body, row, row + 1, codes, cols);
    for (int64_t b = 0; codes && b < t->col_blocks; b++) {
        if (tp_scale_value(t, tp_scales_at(t, row) + b * t->block_bytes) != 0) continue;
        for (int64_t c = b * width; c < (b + 1) * width; c++) nonzero |= codes[c] != 1;
    }
    tp_free(codes);
    return nonzero;
}

int tp_one_scale_per_row(const tp_ternary *t, int *nonzero_under_zero) {
    *nonzero_under_zero = 0;
    if (t->col_blocks == 1) return 1;
    if (t->grouped) return 0; /* packers merge equal scales of groups, so these differ */
    for (int64_t r = 0; r < t->body.rows; r++) {
        const uint8_t *at = tp_scales_at(t, r);
        const float scale = row_scale(t, r);
        int zeros = 0;
        for (int64_t b = 0; b < t->col_blocks; b++) {
            const float block_scale = tp_scale_value(t, at + b * t->block_bytes);
            if (block_scale == 0) zeros = 1;
            else if (block_scale != scale) return 0;
        }
        if (!*nonzero_under_zero && zeros && scale != 0)
            *nonzero_under_zero = row_nonzero_under_zero(t, r);
    }
    return 1;
}

void tp_row_scales(const tp_ternary *t, int64_t row0, int64_t row1, float *out) {
    /* Where every row has a scale, a division per row would be felt. */
    if (t->rows_per_scale == 1 && t->run == 1) {
        const uint8_t *at = t->scales + row0 * t->run_bytes;
        for (int64_t r = row0; r < row1; r++, at += t->run_bytes)
            out[r - row0] = row_scale_at(t, at);
        return;
    }
    for (int64_t r = row0; r < row1;) {
        const float scale = row_scale(t, r);
        for (const int64_t last = (r / t->rows_per_scale + 1) * t->rows_per_scale;
             r < row1 && r < last; r++)
            out[r - row0] = scale;
    }
}

/* Makes zeros (code 1) of the codes under scales of 0. */
static void clear_under_zero(const tp_ternary *t, int64_t row, uint8_t *codes /* (cols) */) {
    const int64_t width = t->body.cols / t->col_blocks;
    const uint8_t *at = tp_scales_at(t, row);
    for (int64_t b = 0; b < t->col_blocks; b++)
        if (tp_scale_value(t, at + b * t->block_bytes) == 0)
            memset(codes + b * width, 1, (size_t)width);
}

/* ---- codes and floats of rows ---- */

tp_tensor tp_direct_codes(const tp_ternary *t) {
    tp_tensor codes = t->body;
    codes.layout = direct_layout(codes.layout);
    /* T2 fills its last block up. */
    if (codes.layout == TP_LAYOUT_I2_S) codes.cols = tp_padded_cols(codes.cols);
    return codes;
}

void tp_unpack_rows(const tp_kernel *unpack, const tp_ternary *t, int64_t row0, int64_t row1,
                    uint8_t *out, int64_t ld) {
    unpack->unpack(&t->body, row0, row1, out, ld);
    for (int64_t r = row0; r < row1; r++) clear_under_zero(t, r, out + (r - row0) * ld);
}

size_t tp_dequantize_scratch(int64_t cols) {
    return (size_t)(tp_round64(cols * (int64_t)sizeof(float)) + tp_round64(cols));
}

void tp_dequantize_row(tp_kernel_plan dequantize, const tp_ternary *t, int64_t row, float *out,
                       void *scratch) {
    const int64_t cols = t->body.cols;
    float *scales = scratch;
    tp_scales_of_row(t, row, scales);
    if (dequantize.unpack) {
        uint8_t *plain = (uint8_t *)scratch + tp_round64(cols * (int64_t)sizeof(float));
        tp_unpack_rows(dequantize.unpack, t, row, row + 1, plain, cols);
        dequantize.kernel->dequantize(plain, cols, scales, t->col_blocks, out);
        return;
    }
    dequantize.kernel->dequantize((const uint8_t *)t->body.data + row * (tp_padded_cols(cols) / 4),
                                  cols, scales, t->col_blocks, out);
    /* A code of -1 times a scale of 0 would be -0, and codes under a scale of 0 are zeros. */
    for (int64_t b = 0, width = cols / t->col_blocks; b < t->col_blocks; b++)
        if (scales[b] == 0) memset(out + b * width, 0, (size_t)width * sizeof(float));
}

/* ---- whole tensors, as formats/layouts packs and unpacks them ---- */

/* Describes a body and checks it. Returns a tp_status. */
static int body_of(int layout, const int32_t *tile, int64_t rows, int64_t cols, const void *body,
                   uint64_t nbytes, const void *codes, tp_tensor *out) {
    const int32_t none[3] = {0, 0, 0};
    *out = (tp_tensor){
        .data = body, .rows = rows, .cols = cols, .nbytes = nbytes, .layout = layout, .scale = 1};
    memcpy(out->tile, tile ? tile : none, sizeof none);
    if (!body || !codes) return TP_ERR_ARGUMENT;
    if (!tp_kernel_best(TP_OP_UNPACK, layout, TP_ISA_SCALAR)) return TP_ERR_LAYOUT;
    const uint64_t expected = tp_body_nbytes(layout, rows, cols);
    if (!expected || !tp_tile_fits(out)) return TP_ERR_SHAPE;
    return nbytes == expected ? TP_OK : TP_ERR_BYTES;
}

int tp_pack(int layout, const int32_t *tile, int64_t rows, int64_t cols, const int8_t *codes,
            uint8_t *body, uint64_t body_bytes) {
    tp_tensor shape;
    const int status = body_of(layout, tile, rows, cols, body, body_bytes, codes, &shape);
    if (!status) tp_kernel_best(TP_OP_PACK, layout, tp_best_isa())->pack(codes, &shape, body);
    return status;
}

int tp_unpack(int layout, const int32_t *tile, int64_t rows, int64_t cols, const uint8_t *body,
              uint64_t body_bytes, int8_t *codes) {
    tp_tensor w;
    const int status = body_of(layout, tile, rows, cols, body, body_bytes, codes, &w);
    if (status) return status;
    const tp_kernel *k = tp_kernel_best(TP_OP_UNPACK, layout, tp_best_isa());
    /* Rows go in steps, so that codes become weights while they are in the L1 cache. */
    const int64_t step = 1 + 16384 / cols;
    for (int64_t row = 0; row < rows; row += step) {
        const int64_t count = rows - row < step ? rows - row : step;
        uint8_t *to = (uint8_t *)codes + row * cols;
        k->unpack(&w, row, row + count, to, cols);
        for (int64_t i = 0; i < count * cols; i++) to[i]--;
    }
    return TP_OK;
}
