/* The operations of matvec_lines.inc on one line, in plain C: the specification. Each
 * matvec_words_ISA.h defines the same names:
 *   sums, sums_clear      the running sums of a row
 *   codes, planes, trits  add the products of `bytes` bytes at p (64 are readable) with the
 *                         activations of their fields at q
 *   sums_total            the sum of a row
 *   sums_of_quads         totals[k] += what `planes` summed from bytes 4 k .. 4 k + 3 of every 16,
 *                         which belong to row k of four interleaved rows
 *   LINES_AT_ONCE         lines after which the sums are added up, so that no lane wraps
 *   MOST_ROWS_AT_ONCE     rows of trits that one call of trits_of_rows handles
 *   TOKENS_AT_ONCE        tokens of a tile of matvec_tokens.inc, whose names the others define
 *                         too */
#ifndef TRITPACK_MATVEC_WORDS_SCALAR_H
#define TRITPACK_MATVEC_WORDS_SCALAR_H

#include "../row_geometry.h"

#define MOST_ROWS_AT_ONCE 1
#define TOKENS_AT_ONCE 1
#define LINES_AT_ONCE 1024

typedef struct sums {
    int32_t v, quads[4];
} sums;

TP_INLINE void sums_clear(sums *s) { *s = (sums){0, {0, 0, 0, 0}}; }
TP_INLINE int32_t sums_total(const sums *s, tp_line_kind kind) {
    return kind == LINE_PLANES ? s->quads[0] + s->quads[1] + s->quads[2] + s->quads[3] : s->v;
}

TP_INLINE void codes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    for (int i = 0; i < bytes; i++) s->v += p[i] * q[i];
}

TP_INLINE void planes(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    for (int f = 0; f < 4; f++)
        for (int i = 0; i < bytes; i++)
            s->quads[i / 4 % 4] += (p[i] >> (6 - 2 * f) & 3) * q[LINE * f + i];
}

TP_INLINE void sums_of_quads(const sums *s, int32_t *totals) {
    for (int k = 0; k < 4; k++) totals[k] += s->quads[k];
}

TP_INLINE void trits(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    for (int i = 0; i < bytes; i++) {
        uint8_t x = p[i];
        for (int f = 0; f < 5; f++) {
            s->v += ((x >= 86) + (x >= 171)) * q[LINE * f + i];
            x = (uint8_t)(3 * x);
        }
    }
}

#endif
