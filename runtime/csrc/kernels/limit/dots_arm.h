/* dots_u8 of ARM. The including file defines DOT, by which a word gains products of words, and PRODUCTS, those of a lane. */
#include <arm_neon.h>

#include "../common.h"

#define EACH12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define ZERO(i) int32x4_t a##i = vdupq_n_s32(0);
#define STEP(i) a##i = DOT(a##i, u, s);
#define KEEP(i) __asm__ volatile("" : "+w"(a##i));
#define SAME(i) same &= vminvq_u32(vceqq_s32(a##i, a0)) != 0;

/* 16 products of each lane in 12 words are a round. u is below 128 here or counts as negative, which is undone. */
TP_INLINE uint64_t dots(const uint8_t *us, int64_t n) {
    const int8x16_t u = vdupq_n_s8((int8_t)us[0]), s = vdupq_n_s8((int8_t)us[1]);
    int same = 1;
    EACH12(ZERO)
    for (int64_t i = 0; i < n; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < 16 / PRODUCTS; j++) { EACH12(STEP) }
        EACH12(KEEP)
    }
    EACH12(SAME)
    const uint32_t want = (uint32_t)(n * 4 * us[0] * (int8_t)us[1]), negative = us[0] > 127 ? (uint32_t)(n * 4 * 256 * (int8_t)us[1]) : 0;
    return same && (uint32_t)vgetq_lane_s32(a0, 0) == 4 * (want - negative) ? want : UINT64_MAX;
}
