/* What integers mean: y = (sum / s) * scale, in that order, each operation rounded, so that any vector width gives the same. */
#include "../common.h"

TP_INLINE void rescale(const int32_t *restrict sums, float s, const float *restrict scales, int64_t n, float *restrict y) {
    /* Under a scale of 0 sums may be any: it gives 0, not -0, nor NaN for a quotient that is infinite. */
    for (int64_t i = 0; i < n; i++) y[i] = (scales[i] == 0 ? s : (float)sums[i] / s) * scales[i] + 0.0f;
}
