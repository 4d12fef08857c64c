/* What integers mean: y = (sum / s) * scale, in that order, each operation rounded, so that any
 * vector width gives the same. */
#ifndef TRITPACK_RESCALE_H
#define TRITPACK_RESCALE_H

#include "../common.h"

TP_INLINE void rescale(const int32_t *restrict sums, float s, const float *restrict scales,
                       int64_t n, float *restrict y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = ((float)sums[i] / s) * scales[i] + 0.0f; /* 0 under a scale of 0, not -0 */
}

#endif
