/* RMSNorm, for AVX2. */
#include "rmsnorm.h"

void rmsnorm_f32_avx2(const float *x, const float *w, int64_t cols, float eps, float *y) {
    rmsnorm_body(x, w, cols, eps, y);
}
