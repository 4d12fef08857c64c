/* RMSNorm, for WebAssembly's SIMD128. */
#include "rmsnorm.h"

void rmsnorm_f32_simd128(const float *x, const float *w, int64_t cols, float eps, float *y) {
    rmsnorm_body(x, w, cols, eps, y);
}
