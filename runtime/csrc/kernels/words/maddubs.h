/* Words of SSSE3 and AVX2: vpmaddubsw, whose sums of two stay far inside int16 for codes of 0 to 3, and for those of a byte
 * added up too: 5 * 2 * 3 * 128 = 3840. The including file defines V, WORD (bytes of V) and the V_* operations. */
#include "../lines.h"

#define MOST_ROWS_AT_ONCE 1
#define LINES_AT_ONCE 1024

typedef struct sums { V v[LINE / WORD]; } sums;

TP_INLINE void sums_clear(sums *s) {
    for (int i = 0; i < LINE / WORD; i++) s->v[i] = V_SPLAT8(0);
}

TP_INLINE int32_t sums_total(const sums *s, tp_line_kind kind) {
    (void)kind;
    V sum = s->v[0];
    for (int i = 1; i < LINE / WORD; i++) sum = V_ADD32(sum, s->v[i]);
    return V_TOTAL(sum);
}

TP_INLINE void sums_of_quads(const sums *s, int32_t *totals) {
    V sum = s->v[0];
    for (int i = 1; i < LINE / WORD; i++) sum = V_ADD32(sum, s->v[i]);
    V_ADD_QUADS(sum, totals);
}

#define EACH_WORD(i) _Pragma("GCC unroll 4") for (int i = 0; i * WORD < bytes; i++)

TP_INLINE V field(V code, const int8_t *q) { return V_MADDUBS(code, V_LOAD(q)); }
TP_INLINE V widened(V sum, V pairs) { return V_ADD32(sum, V_MADD(pairs, V_SPLAT16(1))); }

TP_INLINE void codes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    EACH_WORD(i) s->v[i] = widened(s->v[i], field(V_LOAD(p + WORD * i), q + WORD * i));
}

TP_INLINE void planes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    const V three = V_SPLAT8(3);
    EACH_WORD(i) {
        const V x = V_LOAD(p + WORD * i);
        const int8_t *a = q + WORD * i;
        const V high = V_ADD16(field(V_AND(V_SHR16(x, 6), three), a), field(V_AND(V_SHR16(x, 4), three), a + LINE));
        const V low = V_ADD16(field(V_AND(V_SHR16(x, 2), three), a + 2 * LINE), field(V_AND(x, three), a + 3 * LINE));
        s->v[i] = widened(s->v[i], V_ADD16(high, low));
    }
}

/* Digits by two comparisons of x - 128, which trebles as x does. */
TP_INLINE void trits(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    V one = V_SPLAT8(85 - 128), two = V_SPLAT8(170 - 128);
    __asm__("" : "+x"(one));      /* hides that it is a constant: gcc 12 would make two instructions of the comparison, 15 % slower */
    EACH_WORD(i) {
        V x = V_XOR(V_LOAD(p + WORD * i), V_SPLAT8((char)0x80)), pairs = V_SPLAT8(0);
#pragma GCC unroll 5
        for (int f = 0; f < 5; f++) {
            pairs = V_ADD16(pairs, field(V_ABS8(V_ADD8(V_GT8(x, one), V_GT8(x, two))), q + LINE * f + WORD * i));
            x = V_ADD8(V_ADD8(x, x), x);
        }
        s->v[i] = widened(s->v[i], pairs);
    }
}
