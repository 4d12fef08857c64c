/* Integer products to floats, for WebAssembly's SIMD128. */
#include "rescale.h"

void rescale_f32_simd128(const int32_t *sums, float s, const float *scales, int64_t n, float *y) {
    rescale(sums, s, scales, n, y);
}
