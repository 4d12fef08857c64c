/* Integer products to floats, for AVX-512 VNNI. */
#include "rescale.h"

void rescale_f32_avx512vnni(const int32_t *sums, float s, const float *scales, int64_t n,
                            float *y) {
    rescale(sums, s, scales, n, y);
}
