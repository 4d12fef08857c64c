/* The words of NEON with dotprod for matvec_lines.inc; matvec_words_scalar.h says what each of
 * them does. i8mm has nothing to add to them.
 *
 * There are signed products only. Plain codes and the three lower fields of a byte are multiplied
 * where they stand, since small numbers are the same signed or not; accumulator f of a plane holds
 * 1, 16, 4 or 1 times its sum.
 *
 * A byte x of trits has the digits d(n) = (3 x(n) - x(n + 1)) / 256, where x(n + 1) = 3 x(n)
 * modulo 256 (usdot.inc). With the signed bytes y(n) = x(n) - 128 there is y(n + 1) = 3 y(n)
 * modulo 256 too, and
 *
 *     256 * sum (d(n) - 1) a(n) = 3 * sum y(n) a(n) - sum y(n + 1) a(n)
 *
 * so that these are the sums of weights -1, 0, +1: nothing is to be taken off them. */
#ifndef TRITPACK_MATVEC_WORDS_DOTPROD_H
#define TRITPACK_MATVEC_WORDS_DOTPROD_H

#include "../row_geometry.h"
#include "neon.h"

#define MOST_ROWS_AT_ONCE 1
#define LINES_AT_ONCE 256
#define TRITS_ARE_WEIGHTS 1
_Static_assert(4LL * (LINE / 16) * 5 * 4 * 128 * 128 * LINES_AT_ONCE < INT32_MAX,
               "a lane would wrap");

typedef struct sums {
    int32x4_t v[4], u[4];
} sums;

TP_INLINE void sums_clear(sums *s) {
    for (int i = 0; i < 4; i++) s->v[i] = s->u[i] = vdupq_n_s32(0);
}

TP_INLINE int32x4_t sum_of_four(const int32x4_t v[4]) {
    return vaddq_s32(vaddq_s32(v[0], v[1]), vaddq_s32(v[2], v[3]));
}

TP_INLINE int32x4_t sums_of_planes(const sums *s) {
    int32x4_t f[4];
    for (int i = 0; i < 4; i++) f[i] = vaddq_s32(s->v[i], s->u[i]);
    f[1] = vshrq_n_s32(f[1], 4);
    f[2] = vshrq_n_s32(f[2], 2);
    return sum_of_four(f);
}

TP_INLINE int32_t sums_total(const sums *s, tp_line_kind kind) {
    if (kind == LINE_PLANES) return vaddvq_s32(sums_of_planes(s));
    const int32x4_t v = sum_of_four(s->v);
    if (kind == LINE_CODES) return vaddvq_s32(v);
    return vaddvq_s32(vshrq_n_s32(vsubq_s32(vmulq_n_s32(v, 3), sum_of_four(s->u)), 8));
}

TP_INLINE void sums_of_quads(const sums *s, int32_t *totals) {
    vst1q_s32(totals, vaddq_s32(vld1q_s32(totals), sums_of_planes(s)));
}

#define EACH_WORD(i) _Pragma("GCC unroll 4") for (int i = 0; i * 16 < bytes; i++)

TP_INLINE void codes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    EACH_WORD(i)
    s->v[i] = vdotq_s32(s->v[i], vld1q_s8((const int8_t *)p + 16 * i), vld1q_s8(q + 16 * i));
}

TP_INLINE int8x16_t field_in_place(uint8x16_t x, int f) {
    return vreinterpretq_s8_u8(f == 0   ? vshrq_n_u8(x, 6)
                               : f == 1 ? vandq_u8(x, vdupq_n_u8(0x30))
                               : f == 2 ? vandq_u8(x, vdupq_n_u8(0x0c))
                                        : vandq_u8(x, vdupq_n_u8(0x03)));
}

/* A pair has two accumulators a field, so that a product need not wait for the one before. */
TP_INLINE void planes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
#pragma GCC unroll 2
    for (int byte = 0; byte < bytes; byte += 32) {
        const uint8x16_t x = vld1q_u8(p + byte), y = vld1q_u8(p + byte + 16);
#pragma GCC unroll 4
        for (int f = 0; f < 4; f++) {
            const acts_pair a = acts_load_pair(q, LINE * f + byte);
            s->v[f] = vdotq_s32(s->v[f], field_in_place(x, f), a.v[0]);
            s->u[f] = vdotq_s32(s->u[f], field_in_place(y, f), a.v[1]);
        }
    }
}

TP_INLINE int8x16_t thrice(int8x16_t x, uint8x16_t three) { /* wraps */
    return vreinterpretq_s8_u8(vmulq_u8(vreinterpretq_u8_s8(x), three));
}

TP_INLINE void trits(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    uint8x16_t three = vdupq_n_u8(3);
    __asm__("" : "+w"(three)); /* opaque: of a constant gcc makes a shift and an addition */
#pragma GCC unroll 2
    for (int byte = 0; byte < bytes; byte += 32) {
        int8x16_t x = veorq_s8(vld1q_s8((const int8_t *)p + byte), vdupq_n_s8(-128)),
                  y = veorq_s8(vld1q_s8((const int8_t *)p + byte + 16), vdupq_n_s8(-128));
        const int i = byte / 16;
#pragma GCC unroll 5
        for (int f = 0; f < 5; f++) {
            const acts_pair a = acts_load_pair(q, LINE * f + byte);
            s->v[i] = vdotq_s32(s->v[i], x, a.v[0]);
            x = thrice(x, three);
            s->u[i] = vdotq_s32(s->u[i], x, a.v[0]);
            if (byte + 16 >= bytes) continue; /* the narrow last line of T158 */
            s->v[i + 1] = vdotq_s32(s->v[i + 1], y, a.v[1]);
            y = thrice(y, three);
            s->u[i + 1] = vdotq_s32(s->u[i + 1], y, a.v[1]);
        }
    }
}

/* ---- several tokens: matvec_tokens.inc ---- */

#define WORD 16
#define TOKENS_AT_ONCE 8
#define TILE_ROWS(tokens) ((tokens) <= 4 ? 4 : 2)
#define CODES uint8x16_t
#define SUMS int32x4_t
#define SUMS_ZERO vdupq_n_s32(0)
#define codes_load vld1q_u8
#define acts_load vld1q_s8
#define add_products(s, u, a) (*(s) = vdotq_s32(*(s), vreinterpretq_s8_u8(u), a))
#define sums_add vaddq_s32
#define widened_sums(kind, s) ((kind) == LINE_TRITS ? vnegq_s32(s) : (s))
enum { LINES_OF_SUMS = LINES_AT_ONCE };

TP_INLINE uint8x16_t isolated(tp_line_kind kind, uint8x16_t *x, int f) {
    const uint8x16_t three = vdupq_n_u8(3);
    if (kind == LINE_CODES) return *x;
    if (kind == LINE_PLANES)
        return f == 0   ? vshrq_n_u8(*x, 6)
               : f == 1 ? vandq_u8(vshrq_n_u8(*x, 4), three)
               : f == 2 ? vandq_u8(vshrq_n_u8(*x, 2), three)
                        : vandq_u8(*x, three);
    if (f > 0) *x = vaddq_u8(vaddq_u8(*x, *x), *x);
    return vaddq_u8(vcgeq_u8(*x, vdupq_n_u8(86)), vcgeq_u8(*x, vdupq_n_u8(171)));
}

TP_INLINE void sums_totals(const int32x4_t v[4], int32_t *out) {
    vst1q_s32(out, vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3])));
}

#endif
