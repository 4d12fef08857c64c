/* The words of NEON for matvec_lines.inc; matvec_words_scalar.h says what each of them does.
 * Products are added in 16 bits, those of a line in one place, and then widened. */
#ifndef TRITPACK_MATVEC_WORDS_NEON_H
#define TRITPACK_MATVEC_WORDS_NEON_H

#include "../row_geometry.h"
#include "neon.h"

#define MOST_ROWS_AT_ONCE 1
#define LINES_AT_ONCE 1024
_Static_assert(LINE / 16 * MOST_FIELDS * 3 * 128 < INT16_MAX, "a 16-bit lane would wrap");

/* Of the lower and of the upper halves of words. */
typedef struct sums {
    int32x4_t low, high;
} sums;

TP_INLINE void sums_clear(sums *s) { s->low = s->high = vdupq_n_s32(0); }

TP_INLINE int32_t sums_total(const sums *s, tp_line_kind kind) {
    const int32_t sum = vaddvq_s32(vaddq_s32(s->low, s->high));
    return kind == LINE_TRITS ? -sum : sum;
}

TP_INLINE void sums_of_quads(const sums *s, int32_t *totals) {
    vst1q_s32(totals, vaddq_s32(vld1q_s32(totals), vpaddq_s32(s->low, s->high)));
}

typedef struct sums16 {
    int16x8_t low, high;
} sums16;

TP_INLINE void add_products16(sums16 *s, int8x16_t codes, int8x16_t a) {
    s->low = vmlal_s8(s->low, vget_low_s8(codes), vget_low_s8(a));
    s->high = vmlal_high_s8(s->high, codes, a);
}

TP_INLINE void add_line16(sums *s, const sums16 *line) {
    s->low = vpadalq_s16(s->low, line->low);
    s->high = vpadalq_s16(s->high, line->high);
}

/* Field f of the codes *x, isolated. Digits come from two comparisons, each of which gives -1:
 * sums_total turns the sign. Called for f = 0, 1, ..: *x is the trits' next state then. */
TP_INLINE uint8x16_t isolated(tp_line_kind kind, uint8x16_t *x, int f) {
    const uint8x16_t code = vdupq_n_u8(3);
    uint8x16_t three = code;
    if (kind == LINE_CODES) return *x;
    if (kind == LINE_PLANES)
        return f == 0   ? vshrq_n_u8(*x, 6)
               : f == 1 ? vandq_u8(vshrq_n_u8(*x, 4), code)
               : f == 2 ? vandq_u8(vshrq_n_u8(*x, 2), code)
                        : vandq_u8(*x, code);
    __asm__("" : "+w"(three)); /* opaque: of a constant gcc makes a shift and an addition */
    if (f > 0) *x = vmulq_u8(*x, three); /* wraps */
    return vaddq_u8(vcgeq_u8(*x, vdupq_n_u8(86)), vcgeq_u8(*x, vdupq_n_u8(171)));
}

TP_INLINE void add_fields(sums *s, tp_line_kind kind, const uint8_t *p, int bytes,
                          const int8_t *q) {
    sums16 line = {vdupq_n_s16(0), vdupq_n_s16(0)};
#pragma GCC unroll 2
    for (int byte = 0; byte < bytes; byte += 32) {
        uint8x16_t x = vld1q_u8(p + byte), y = vld1q_u8(p + byte + 16);
#pragma GCC unroll 5
        for (int f = 0; f < (int)kind; f++) {
            const acts_pair a = acts_load_pair(q, LINE * f + byte);
            add_products16(&line, vreinterpretq_s8_u8(isolated(kind, &x, f)), a.v[0]);
            if (byte + 16 < bytes)
                add_products16(&line, vreinterpretq_s8_u8(isolated(kind, &y, f)), a.v[1]);
        }
    }
    add_line16(s, &line);
}

TP_INLINE void codes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    add_fields(s, LINE_CODES, p, bytes, q);
}

TP_INLINE void planes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    add_fields(s, LINE_PLANES, p, bytes, q);
}

TP_INLINE void trits(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    add_fields(s, LINE_TRITS, p, bytes, q);
}

/* ---- several tokens: matvec_tokens.inc ---- */

#define WORD 16
#define TOKENS_AT_ONCE 8
#define TILE_ROWS(tokens) ((tokens) <= 4 ? 4 : 2)
#define CODES uint8x16_t
#define SUMS int32x4_t /* eight of 16 bits, until they are widened */
#define SUMS_ZERO vdupq_n_s32(0)
#define codes_load vld1q_u8
#define acts_load vld1q_s8
#define sums_add vaddq_s32
enum { LINES_OF_SUMS = 2 };
_Static_assert(LINES_OF_SUMS *(LINE / 16) * 2 * 4 * 3 * 128 < INT16_MAX &&
                   LINES_OF_SUMS * (LINE / 16) * 2 * 5 * 2 * 128 < INT16_MAX,
               "a 16-bit lane would wrap: by 4 codes of at most 3, or 5 digits of at most 2");

TP_INLINE void add_products(int32x4_t *s, uint8x16_t u, int8x16_t a) {
    const int8x16_t codes = vreinterpretq_s8_u8(u);
    const int16x8_t low = vmlal_s8(vreinterpretq_s16_s32(*s), vget_low_s8(codes), vget_low_s8(a));
    *s = vreinterpretq_s32_s16(vmlal_high_s8(low, codes, a));
}

TP_INLINE int32x4_t widened_sums(tp_line_kind kind, int32x4_t s) {
    const int32x4_t wide = vpaddlq_s16(vreinterpretq_s16_s32(s));
    return kind == LINE_TRITS ? vnegq_s32(wide) : wide;
}

TP_INLINE void sums_totals(const int32x4_t v[4], int32_t *out) {
    vst1q_s32(out, vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3])));
}

#endif
