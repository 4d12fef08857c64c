/* Master weights to their mean magnitude and to codes, for AVX2. */
#include "absmean.h"

void abs_sum_f32_avx2(const float *x, int64_t n, double *lanes) { abs_sum(x, n, lanes); }

void absmean_f32_avx2(const float *x, int64_t n, float reciprocal, int8_t *codes) {
    absmean(x, n, reciprocal, codes);
}
