/* Ternary rows by the floats of one token: a code picks its weight from a table of the row's
 * scale, so that no row of floats is ever stored. Weights, products and the order of sums are
 * those of dequantize and of a float lm_head. ROWS rows take turns, to hide the latency of
 * additions. */
#ifndef TRITPACK_MATVEC_F32_H
#define TRITPACK_MATVEC_F32_H

#include "../i2_s.h"
#include "../simd_f32/lanes16.h"
#include "../stream.h"

enum { ROWS = 4 };

typedef struct picks {
    vi v[LANES_PARTS];
} picks;
TP_INLINE vf table_of(float s) {
    const float weights[4] = {-1.0f * s, 0.0f * s, 1.0f * s, 2.0f * s};
    return vf_table(weights);
}
TP_INLINE picks picks_load(const uint8_t *p) {
    picks codes;
#pragma GCC unroll 4
    for (int i = 0; i < LANES_PARTS; i++) codes.v[i] = vi_load_u8(p + i * LANES_NATIVE);
    return codes;
}
TP_INLINE lanes pick(vf table, picks codes, const int shift) {
    return LANES_EACH(vf_of_table(table, codes.v[i], shift));
}

TP_INLINE lanes add_product(lanes acc, lanes weights, const float *x) {
    return lanes_add(acc, lanes_mul(weights, lanes_load(x)));
}

/* `rows` rows, ld bytes apart. planes: I2_S, 128 codes in 32 bytes; else a code a byte. A scale
 * has whole steps of columns. */
TP_INLINE void some_rows(const uint8_t *codes, int64_t ld, const int rows, int64_t cols,
                         const float *scales, int64_t col_blocks, const int planes, const float *x,
                         float *out) {
    const int64_t width = cols / col_blocks;
    lanes acc[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) acc[r] = lanes_splat(0.0f);
    for (int64_t b = 0; b < col_blocks; b++) {
        vf t[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) t[r] = table_of(scales[r * col_blocks + b]);
        for (int64_t c = b * width; c < (b + 1) * width; c += planes ? 128 : 16)
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                if (!planes) {
                    acc[r] =
                        add_product(acc[r], pick(t[r], picks_load(codes + r * ld + c), 0), x + c);
                    continue;
                }
                const uint8_t *p = codes + r * ld + c / 4;
                if (c % 256 == 0) stream_ahead(p);
                const picks low = picks_load(p), high = picks_load(p + 16);
#pragma GCC unroll 4
                for (int f = 0; f < 4; f++) {
                    acc[r] = add_product(acc[r], pick(t[r], low, 6 - 2 * f), x + c + 32 * f);
                    acc[r] = add_product(acc[r], pick(t[r], high, 6 - 2 * f), x + c + 32 * f + 16);
                }
            }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) out[r] = lanes_tree(acc[r]);
}

TP_INLINE void matvec_f32(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                          const float *scales, int64_t col_blocks, const int planes, const float *x,
                          float *out) {
    assert(cols % col_blocks == 0 && cols / col_blocks % (planes ? 128 : 16) == 0);
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        some_rows(codes + r * ld, ld, ROWS, cols, scales + r * col_blocks, col_blocks, planes, x,
                  out + r);
    for (; r < rows; r++)
        some_rows(codes + r * ld, ld, 1, cols, scales + r * col_blocks, col_blocks, planes, x,
                  out + r);
}

#endif
