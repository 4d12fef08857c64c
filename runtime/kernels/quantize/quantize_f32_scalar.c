#include "../common.h"

void quantize_f32_scalar(const float *x, int64_t cols, int8_t *q, float *s, int32_t *sum_q) {
    float a = 1e-5f;
    int32_t sum = 0;
    for (int64_t i = 0; i < cols; i++) {
        const float m = x[i] < 0 ? -x[i] : x[i];
        a = m > a ? m : a;
    }
    *s = 127.0f / a;
    for (int64_t i = 0; i < cols; i++) {
        const int32_t v = tp_round_even(x[i] * *s);
        q[i] = (int8_t)(v > 127 ? 127 : v < -128 ? -128 : v);
        sum += q[i];
    }
    *sum_q = sum;
}
