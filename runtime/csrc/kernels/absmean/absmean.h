/* Master weights to their mean magnitude and to codes, elementwise but for sixteen sums, so that
 * the compiler vectorises it for each instruction set. */
#ifndef TRITPACK_ABSMEAN_H
#define TRITPACK_ABSMEAN_H

#include "../common.h"

TP_INLINE double abs_double(float x) {
    return (double)tp_bits_float(tp_float_bits(x) & 0x7fffffffu);
}

TP_INLINE void abs_sum(const float *restrict x, int64_t n, double *restrict lanes /* (16) */) {
    double sums[16];
    memcpy(sums, lanes, sizeof sums);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) sums[j] += abs_double(x[i + j]);
    for (; i < n; i++) sums[i % 16] += abs_double(x[i]);
    memcpy(lanes, sums, sizeof sums);
}

/* Halves round to zero, so a code is +-1 beyond them. */
TP_INLINE void absmean(const float *restrict x, int64_t n, float reciprocal,
                       int8_t *restrict codes) {
    for (int64_t i = 0; i < n; i++) {
        const float w = x[i] * reciprocal;
        codes[i] = (int8_t)((w > 0.5f) - (w < -0.5f));
    }
}

#endif
