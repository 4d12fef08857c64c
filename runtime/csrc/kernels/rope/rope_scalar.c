/* Rotary embeddings: elementwise, so that the compiler vectorises them. */
#include "../common.h"

void rope_f32_scalar(float *x, int64_t heads, int64_t head_dim, const float *cos_sin) {
    const int64_t half = head_dim / 2;
    const float *restrict c = cos_sin, *restrict s = cos_sin + half;
    for (int64_t h = 0; h < heads; h++) {
        float *restrict a = x + h * head_dim, *restrict b = a + half;
        for (int64_t i = 0; i < half; i++) {
            const float u = a[i], v = b[i];
            a[i] = u * c[i] - v * s[i];
            b[i] = v * c[i] + u * s[i];
        }
    }
}

void ropepairs_f32_scalar(float *x, int64_t heads, int64_t head_dim, const float *cos_sin) {
    const int64_t half = head_dim / 2;
    const float *restrict c = cos_sin, *restrict s = cos_sin + half;
    for (int64_t h = 0; h < heads; h++) {
        float *restrict a = x + h * head_dim;
        for (int64_t i = 0; i < half; i++) {
            const float u = a[2 * i], v = a[2 * i + 1];
            a[2 * i] = u * c[i] - v * s[i];
            a[2 * i + 1] = v * c[i] + u * s[i];
        }
    }
}
