/* RMSNorm. */
#ifndef TRITPACK_RMSNORM_H
#define TRITPACK_RMSNORM_H

#include "../simd_f32/lanes16.h"

TP_INLINE void rmsnorm_body(const float *x, const float *w, int64_t cols, float eps, float *y) {
    lanes acc = lanes_splat(0.0f);
    int64_t i = 0;
    for (; i + 16 <= cols; i += 16)
        acc = lanes_add(acc, lanes_mul(lanes_load(x + i), lanes_load(x + i)));
    if (i < cols)
        acc =
            lanes_add(acc, lanes_mul(lanes_load_n(x + i, cols - i), lanes_load_n(x + i, cols - i)));
    const float r = 1.0f / __builtin_sqrtf(lanes_tree(acc) / (float)cols + eps);
    const lanes by = lanes_splat(r);
    for (i = 0; i + 16 <= cols; i += 16)
        lanes_store(y + i, lanes_mul(lanes_mul(lanes_load(x + i), by), lanes_load(w + i)));
    for (; i < cols; i++) y[i] = (x[i] * r) * w[i];
}

#endif
