/* RMSNorm in plain C: the specification. */
#include "../common.h"

/* y = (x * (1 / sqrt(mean(x^2) + eps))) * w; sum of squares in 16 lanes; sqrt is exact (IEEE). */
void rmsnorm_f32_scalar(const float *x, const float *w, int64_t cols, float eps, float *y) {
    float lanes[16] = {0};
    for (int64_t i = 0; i < cols; i++) lanes[i % 16] += x[i] * x[i];
    const float r = 1.0f / __builtin_sqrtf(tp_tree16(lanes) / (float)cols + eps);
    for (int64_t i = 0; i < cols; i++) y[i] = (x[i] * r) * w[i];
}
