/* Words of instruction sets that multiply unsigned bytes by signed ones and add four products to a lane: AVX-VNNI, AVX-512
 * VNNI, i8mm; SIMD128 in a few. The including file defines V, WORD (bytes of V) and the V_* operations.
 *
 * Nothing is shifted into place or taken apart: 2-bit fields are masked where they stand, so that accumulator f holds 64, 16,
 * 4 or 1 times its sum; and no digit of a trit byte is isolated. With x(n + 1) = 3 x(n) mod 256 digit n is
 * (3 x(n) - x(n + 1)) / 256, so that
 *
 *     256 * sum d(n) a(n) = 3 * sum x(n) a(n) - sum x(n + 1) a(n)
 *
 * for every byte there is: two additions (or a multiplication by 3) and two dot products a digit. Either sum gains at most 20 * 255 * 128 a line in a lane of
 * 64-byte words, and 64 / WORD times that in others; three times the first must fit int32 before lanes are added up. */
#include "../lines.h"

#define LINES_AT_ONCE (16 * WORD)
_Static_assert(3LL * 20 * 255 * 128 * (LINE / WORD) * LINES_AT_ONCE < INT32_MAX, "a lane would wrap");

/* Two of each sum, so that a dot product need not wait for the one before. */
typedef struct sums { V v[MOST_FIELDS], u[MOST_FIELDS]; } sums;

TP_INLINE void sums_clear(sums *s) {
#pragma GCC unroll 5
    for (int f = 0; f < MOST_FIELDS; f++) s->v[f] = s->u[f] = V_ZERO;
}

TP_INLINE V sums_of_planes(const sums *s) {
    const V high = V_ADD32(V_SAR32(V_ADD32(s->v[0], s->u[0]), 6), V_SAR32(V_ADD32(s->v[1], s->u[1]), 4));
    return V_ADD32(high, V_ADD32(V_SAR32(V_ADD32(s->v[2], s->u[2]), 2), V_ADD32(s->v[3], s->u[3])));
}
TP_INLINE void sums_of_quads(const sums *s, int32_t *totals) { V_ADD_QUADS(sums_of_planes(s), totals); }

TP_INLINE int32_t sums_total(const sums *s, tp_line_kind kind) {
    if (kind == LINE_CODES) return V_TOTAL(V_ADD32(s->v[0], s->u[0]));
    if (kind == LINE_PLANES) return V_TOTAL(sums_of_planes(s));
    V a = s->v[0], b = s->u[0];
#pragma GCC unroll 5
    for (int f = 1; f < MOST_FIELDS; f++) {
        a = V_ADD32(a, s->v[f]);
        b = V_ADD32(b, s->u[f]);
    }
    return V_TOTAL(V_SAR32(V_SUB32(V_ADD32(V_ADD32(a, a), a), b), 8));
}

#define EACH_WORD(i) _Pragma("GCC unroll 4") for (int i = 0; i * WORD < bytes; i++)

TP_INLINE void codes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    EACH_WORD(i) V_DOT(i % 2 ? &s->u[0] : &s->v[0], V_LOAD(p + WORD * i), V_LOAD(q + WORD * i));
}

TP_INLINE void planes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    EACH_WORD(i) {
        const V x = V_LOAD(p + WORD * i);
        V *to = i % 2 ? s->u : s->v;
        V_DOT(&to[0], V_AND(x, V_SPLAT8(0xc0)), V_LOAD(q + WORD * i));
        V_DOT(&to[1], V_AND(x, V_SPLAT8(0x30)), V_LOAD(q + LINE + WORD * i));
        V_DOT(&to[2], V_AND(x, V_SPLAT8(0x0c)), V_LOAD(q + 2 * LINE + WORD * i));
        V_DOT(&to[3], V_AND(x, V_SPLAT8(0x03)), V_LOAD(q + 3 * LINE + WORD * i));
    }
}

TP_INLINE void trits(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    EACH_WORD(i) {
        V x = V_LOAD(p + WORD * i);
#pragma GCC unroll 5
        for (int f = 0; f < 5; f++) {
            const V a = V_LOAD(q + LINE * f + WORD * i);
            V_DOT(&s->v[f], x, a);
            x = V_THRICE8(x);
            V_DOT(&s->u[f], x, a);
        }
    }
}
