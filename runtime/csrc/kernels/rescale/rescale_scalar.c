/* Integer products to floats, in plain C. */
#include "rescale.h"

void rescale_f32_scalar(const int32_t *sums, float s, const float *scales, int64_t n, float *y) {
    rescale(sums, s, scales, n, y);
}
