/* Ternary tensors by kernels. A layout that an operation has no kernel for is unpacked to plain codes, a byte each (U8), and
 * the operation's kernel for those is taken: the same integers and the same floats, only slower. */
#include <string.h>

#include "internal.h"

static int64_t round64(int64_t v) { return (v + 63) / 64 * 64; }

static int direct_layout(int layout) { return layout == TP_LAYOUT_T2 ? TP_LAYOUT_I2_S : layout; }

tp_way tp_way_of(tp_op op, int layout, int isa) {
    const tp_way direct = {tp_kernel_best(op, direct_layout(layout), isa), NULL};
    if (!tp_is_ternary(layout)) return direct;
    const tp_way plain = tp_plain_way_of(op, layout, isa);
    /* Products of many tokens are worth a better instruction set, whatever unpacking costs. */
    const int better = direct.kernel && op == TP_OP_MATMUL && plain.kernel->isa > direct.kernel->isa;
    return direct.kernel && !better ? direct : plain;
}

tp_way tp_plain_way_of(tp_op op, int layout, int isa) {
    return (tp_way){tp_kernel_best(op, TP_LAYOUT_U8, isa), tp_kernel_best(TP_OP_UNPACK, layout, isa)};
}

tp_tensor tp_direct_codes(const tp_ternary *t) {
    tp_tensor codes = t->body;
    codes.layout = direct_layout(codes.layout);
    if (codes.layout == TP_LAYOUT_I2_S) codes.cols = tp_padded_cols(codes.cols);     /* T2's last block is filled up */
    return codes;
}

void tp_unpack_rows(const tp_kernel *unpack, const tp_ternary *t, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    unpack->unpack(&t->body, row0, row1, out, ld);
    for (int64_t r = row0; r < row1; r++) tp_clear_unscaled(t, r, out + (r - row0) * ld);
}

size_t tp_dequantize_scratch(int64_t cols) { return (size_t)(round64(cols * (int64_t)sizeof(float)) + round64(cols)); }

void tp_dequantize_row(tp_way dequantize, const tp_ternary *t, int64_t row, float *out, void *scratch) {
    const int64_t cols = t->body.cols;
    float *scales = scratch;
    tp_scales_of_row(t, row, scales);
    if (dequantize.unpack) {
        uint8_t *plain = (uint8_t *)scratch + round64(cols * (int64_t)sizeof(float));
        tp_unpack_rows(dequantize.unpack, t, row, row + 1, plain, cols);
        dequantize.kernel->dequantize(plain, cols, scales, t->col_blocks, out);
        return;
    }
    dequantize.kernel->dequantize((const uint8_t *)t->body.data + row * (tp_padded_cols(cols) / 4), cols, scales, t->col_blocks, out);
    for (int64_t b = 0, width = cols / t->col_blocks; b < t->col_blocks; b++)      /* codes under a scale of 0 are zeros, not -0 */
        if (scales[b] == 0) memset(out + b * width, 0, (size_t)width * sizeof(float));
}

/* ---- the twins of formats/layouts ---- */

static int body_of(int layout, const int32_t *tile, int64_t rows, int64_t cols, const void *body, uint64_t nbytes, const void *codes, tp_tensor *out) {
    const int32_t none[3] = {0, 0, 0};
    *out = (tp_tensor){.data = body, .rows = rows, .cols = cols, .nbytes = nbytes, .layout = layout, .scale = 1};
    memcpy(out->tile, tile ? tile : none, sizeof none);
    if (!body || !codes) return TP_ERR_ARGUMENT;
    if (!tp_kernel_best(TP_OP_UNPACK, layout, TP_ISA_SCALAR)) return TP_ERR_LAYOUT;
    const uint64_t expected = tp_body_nbytes(layout, rows, cols);
    if (!expected || !tp_tile_fits(out)) return TP_ERR_SHAPE;
    return nbytes == expected ? TP_OK : TP_ERR_BYTES;
}

int tp_pack(int layout, const int32_t *tile, int64_t rows, int64_t cols, const int8_t *codes, uint8_t *body, uint64_t body_bytes) {
    tp_tensor shape;
    const int status = body_of(layout, tile, rows, cols, body, body_bytes, codes, &shape);
    if (!status) tp_kernel_best(TP_OP_PACK, layout, tp_best_isa())->pack(codes, &shape, body);
    return status;
}

int tp_unpack(int layout, const int32_t *tile, int64_t rows, int64_t cols, const uint8_t *body, uint64_t body_bytes, int8_t *codes) {
    tp_tensor w;
    const int status = body_of(layout, tile, rows, cols, body, body_bytes, codes, &w);
    if (status) return status;
    const tp_kernel *k = tp_kernel_best(TP_OP_UNPACK, layout, tp_best_isa());
    const int64_t step = 1 + 16384 / cols;      /* rows at a time: codes become weights while they are in the first cache */
    for (int64_t row = 0; row < rows; row += step) {
        const int64_t here = rows - row < step ? rows - row : step;
        uint8_t *to = (uint8_t *)codes + row * cols;
        k->unpack(&w, row, row + here, to, cols);
        for (int64_t i = 0; i < here * cols; i++) to[i]--;
    }
    return TP_OK;
}
