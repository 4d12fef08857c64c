/* Words of NEON: signed products only, so that codes are taken out of their places; small ones are the same signed or not. The
 * including file defines sdot, which adds the products of 16 bytes to four lanes. */
#include <arm_neon.h>

#include "../lines.h"

#define MOST_ROWS_AT_ONCE 1
#define LINES_AT_ONCE 1024

typedef struct sums { int32x4_t v[4]; } sums;

TP_INLINE void sums_clear(sums *s) {
    for (int i = 0; i < 4; i++) s->v[i] = vdupq_n_s32(0);
}

TP_INLINE int32_t sums_total(const sums *s, tp_line_kind kind) {
    const int32_t sum = vaddvq_s32(vaddq_s32(vaddq_s32(s->v[0], s->v[1]), vaddq_s32(s->v[2], s->v[3])));
    return kind == LINE_TRITS ? -sum : sum;
}

TP_INLINE void sums_of_quads(const sums *s, int32_t *totals) {
    vst1q_s32(totals, vaddq_s32(vld1q_s32(totals), vaddq_s32(vaddq_s32(s->v[0], s->v[1]), vaddq_s32(s->v[2], s->v[3]))));
}

#define EACH_WORD(i) _Pragma("GCC unroll 4") for (int i = 0; i * 16 < bytes; i++)

TP_INLINE void codes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    EACH_WORD(i) s->v[i] = sdot(s->v[i], vld1q_s8((const int8_t *)p + 16 * i), vld1q_s8(q + 16 * i));
}

TP_INLINE void planes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    const uint8x16_t three = vdupq_n_u8(3);
    EACH_WORD(i) {
        const uint8x16_t x = vld1q_u8(p + 16 * i);
        const int8_t *a = q + 16 * i;
        s->v[i] = sdot(s->v[i], vreinterpretq_s8_u8(vshrq_n_u8(x, 6)), vld1q_s8(a));
        s->v[i] = sdot(s->v[i], vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(x, 4), three)), vld1q_s8(a + LINE));
        s->v[i] = sdot(s->v[i], vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(x, 2), three)), vld1q_s8(a + 2 * LINE));
        s->v[i] = sdot(s->v[i], vreinterpretq_s8_u8(vandq_u8(x, three)), vld1q_s8(a + 3 * LINE));
    }
}

/* Digits by two comparisons, each of which gives -1: sums_total turns the sign. */
TP_INLINE void trits(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    EACH_WORD(i) {
        uint8x16_t x = vld1q_u8(p + 16 * i);
#pragma GCC unroll 5
        for (int f = 0; f < 5; f++) {
            const uint8x16_t digit = vaddq_u8(vcgeq_u8(x, vdupq_n_u8(86)), vcgeq_u8(x, vdupq_n_u8(171)));
            s->v[i] = sdot(s->v[i], vreinterpretq_s8_u8(digit), vld1q_s8(q + LINE * f + 16 * i));
            x = vaddq_u8(vaddq_u8(x, x), x);
        }
    }
}
