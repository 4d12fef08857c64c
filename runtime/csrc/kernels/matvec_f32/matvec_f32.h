/* Ternary rows by the floats of one token: a code picks its weight from a table of the row's
 * scale, so that no row of floats is ever stored. Weights, products and the order of sums are
 * those of dequantize and of a float lm_head. ROWS rows take turns, to hide the latency of
 * additions. */
#ifndef TRITPACK_MATVEC_F32_H
#define TRITPACK_MATVEC_F32_H

#include "../i2_s.h"
#include "../planes.h"
#include "../simd_f32/lanes16.h"
#include "../stream.h"
#include "../trits.h"

enum { ROWS = 4 };

typedef struct picks {
    vi v[LANES_PARTS];
} picks;
TP_INLINE vf table_of(vf scale) {
    static const float weights[4] = {-1.0f, 0.0f, 1.0f, 2.0f};
    return vf_table(weights) * scale;
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

/* How the codes of a row stand. */
typedef enum codes_of { BYTES, I2_S, PQ2_0, PTQ1_0 } codes_of;

/* 128 codes of I2_S: sixteen bytes have sixteen neighbours in each of four planes. */
TP_INLINE lanes add_i2_s(lanes acc, vf table, const uint8_t *p, const float *x) {
    const picks low = picks_load(p), high = picks_load(p + 16);
#pragma GCC unroll 4
    for (int f = 0; f < 4; f++) {
        acc = add_product(acc, pick(table, low, 6 - 2 * f), x + 32 * f);
        acc = add_product(acc, pick(table, high, 6 - 2 * f), x + 32 * f + 16);
    }
    return acc;
}

/* The digits of sixteen bytes that come first, and the bytes of those after them, times `power`. */
TP_INLINE picks first_digits(picks bytes) {
    return PARTS_EACH(picks, (bytes.v[i] << 1) + bytes.v[i]); /* in bits 8, 9 */
}
TP_INLINE picks later_digits(picks products) { return PARTS_EACH(picks, products.v[i] & 255); }

/* Eight bytes, then eight others, each times its power of three, which moves as many digits out. */
TP_INLINE picks moved_bytes(uint64_t low, uint64_t high, const int32_t powers[16]) {
    const uint64_t both[2] = {low, high};
    const picks bytes = picks_load((const uint8_t *)both);
    vi by[LANES_PARTS];
    memcpy(by, powers, sizeof by);
    return PARTS_EACH(picks, bytes.v[i] * by[i] & 255);
}

/* 128 codes of PTQ1_0: of sixteen bytes five digits each, of eight five, of two four (trits.h). */
TP_INLINE lanes add_ptq1_0(lanes acc, vf table, const uint8_t *p, const float *x) {
    static const int32_t second[16] = {1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3},
                         fourth[16] = {9, 9, 9, 9, 9, 9, 9, 9, 27, 27, 27, 27, 27, 27, 27, 27},
                         last[16] = {81, 81, 81, 81, 81, 81, 81, 81, 1, 1, 3, 3, 9, 9, 27, 27};
    picks bytes = picks_load(p);
#pragma GCC unroll 5
    for (int n = 0; n < 5; n++) {
        const picks digits = first_digits(bytes);
        acc = add_product(acc, pick(table, digits, 8), x + 16 * n);
        bytes = later_digits(digits);
    }
    uint64_t eight;
    uint16_t two;
    memcpy(&eight, p + 16, 8);
    memcpy(&two, p + 24, 2);
    const picks rest[] = {moved_bytes(eight, eight, second), moved_bytes(eight, eight, fourth),
                          moved_bytes(eight, two * UINT64_C(0x0001000100010001), last)};
#pragma GCC unroll 3
    for (int g = 0; g < 3; g++)
        acc = add_product(acc, pick(table, first_digits(rest[g]), 8), x + 80 + 16 * g);
    return acc;
}

/* Each of these takes `rows` rows, ld bytes apart, at most ROWS. */

/* A scale has whole steps of columns: 16 if a code is a byte, else 128. */
TP_INLINE void rows_of_plain(const uint8_t *codes, int64_t ld, const int rows, int64_t cols,
                             const float *scales, int64_t col_blocks, const codes_of kind,
                             const float *x, float *out) {
    const int64_t width = cols / col_blocks;
    lanes acc[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) acc[r] = lanes_splat(0.0f);
    for (int64_t b = 0; b < col_blocks; b++) {
        vf t[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) t[r] = table_of(vf_splat(scales[r * col_blocks + b]));
        for (int64_t c = b * width; c < (b + 1) * width; c += kind == BYTES ? 16 : 128)
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                if (kind == BYTES) {
                    acc[r] =
                        add_product(acc[r], pick(t[r], picks_load(codes + r * ld + c), 0), x + c);
                    continue;
                }
                const uint8_t *p = codes + r * ld + c / 4;
                if (c % 256 == 0) stream_ahead(p);
                acc[r] = add_i2_s(acc[r], t[r], p, x + c);
            }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) out[r] = lanes_tree(acc[r]);
}

/* Code i of sixteen neighbours is in bits 2 i, 2 i + 1 of a word. Sixteen activations are loaded
 * once for all rows. */
TP_INLINE void rows_of_pq2_0(const uint8_t *codes, int64_t ld, const int rows, int64_t cols,
                             float scale, const float *x, float *out) {
    static const uint32_t places[16] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    const vu none = {0};
    vu shift[LANES_PARTS];
    memcpy(shift, places, sizeof shift);
    lanes acc[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) acc[r] = lanes_splat(0.0f);
    for (int64_t c = 0; c < cols; c += 128, codes += TP_PLANES_PQ2_0.bytes) {
        vf t[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            if (c % 256 == 0) stream_ahead(codes + r * ld);
            t[r] = table_of(vf_splat_f16(codes + r * ld) * vf_splat(scale));
        }
#pragma GCC unroll 2 /* all eight would spill the sums */
        for (int g = 0; g < 8; g++) {
            const lanes xs = lanes_load(x + c + 16 * g);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                uint32_t word;
                memcpy(&word, codes + r * ld + TP_PLANES_PQ2_0.first + 4 * g, 4);
                const picks sixteen = PARTS_EACH(picks, (vi)((none + word) >> shift[i]));
                acc[r] = lanes_add(acc[r], lanes_mul(pick(t[r], sixteen, 0), xs));
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) out[r] = lanes_tree(acc[r]);
}

TP_INLINE void rows_of_ptq1_0(const uint8_t *codes, int64_t ld, const int rows, int64_t cols,
                              float scale, const float *x, float *out) {
    lanes acc[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) acc[r] = lanes_splat(0.0f);
    for (int64_t c = 0; c < cols; c += 128, codes += TP_STAGES_PTQ1_0.bytes)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const uint8_t *p = codes + r * ld;
            if (c % 256 == 0) stream_ahead(p);
            const vf t = table_of(vf_splat_f16(p + TP_STAGES_PTQ1_0.bytes - 2) * vf_splat(scale));
            acc[r] = add_ptq1_0(acc[r], t, p, x + c);
        }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) out[r] = lanes_tree(acc[r]);
}

TP_INLINE void some_rows(const uint8_t *codes, int64_t ld, const int rows, int64_t cols,
                         const float *scales, int64_t col_blocks, const codes_of kind,
                         const float *x, float *out) {
    if (kind == PQ2_0) rows_of_pq2_0(codes, ld, rows, cols, *scales, x, out);
    else if (kind == PTQ1_0) rows_of_ptq1_0(codes, ld, rows, cols, *scales, x, out);
    else rows_of_plain(codes, ld, rows, cols, scales, col_blocks, kind, x, out);
}

TP_INLINE void matvec_f32(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                          const float *scales, int64_t col_blocks, const codes_of kind,
                          const float *x, float *out) {
    assert(cols % col_blocks == 0 && cols / col_blocks % (kind == BYTES ? 16 : 128) == 0);
    const int64_t of_row = kind == PQ2_0 || kind == PTQ1_0 ? 0 : col_blocks; /* scales apart */
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        some_rows(codes + r * ld, ld, ROWS, cols, scales + r * of_row, col_blocks, kind, x,
                  out + r);
    for (; r < rows; r++)
        some_rows(codes + r * ld, ld, 1, cols, scales + r * of_row, col_blocks, kind, x, out + r);
}

#endif
