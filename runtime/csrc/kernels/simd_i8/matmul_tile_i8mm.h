/* What matmul_128.inc multiplies with on ARM with i8mm: an instruction takes 8 columns of two
 * tokens and of two rows. */
#ifndef TRITPACK_MATMUL_TILE_I8MM_H
#define TRITPACK_MATMUL_TILE_I8MM_H

#include <arm_neon.h>

#include "../common.h"

#define WIDTH 8
#define TILE 8

TP_INLINE void tile_of(const uint8_t *panel, const int8_t *q, int64_t cols, const int tokens,
                       int32_t *to /* (TILE tokens, 8 rows) */) {
    int32x4_t sums[TILE / 2][4]; /* of tokens 2 t, 2 t + 1 and rows 2 r, 2 r + 1 */
    for (int t = 0; t < tokens / 2; t++)
        for (int r = 0; r < 4; r++) sums[t][r] = vdupq_n_s32(0);
    for (int64_t c = 0; c < cols; c += WIDTH, panel += 64, q += 8 * tokens) {
        int8x16_t rows[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) rows[r] = vld1q_s8((const int8_t *)panel + 16 * r);
        for (int t = 0; t < tokens / 2;
             t++) { /* unrolled by itself; asked for four, clang 14 leaves two as they are */
            const int8x16_t two = vld1q_s8(q + 16 * t);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) sums[t][r] = vmmlaq_s32(sums[t][r], two, rows[r]);
        }
    }
    for (int t = 0; t < tokens / 2; t++)
        for (int r = 0; r < 4; r++) {
            vst1_s32(to + 16 * t + 2 * r, vget_low_s32(sums[t][r]));
            vst1_s32(to + 16 * t + 8 + 2 * r, vget_high_s32(sums[t][r]));
        }
}

TP_INLINE void tile(const uint8_t *panel, const int8_t *q, int64_t cols, int64_t tokens,
                    int32_t *to) {
    if (tokens > 4) tile_of(panel, q, cols, 8, to);
    else tile_of(panel, q, cols, 4, to);
}

#endif
