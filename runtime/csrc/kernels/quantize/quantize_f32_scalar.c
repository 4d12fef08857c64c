#include "../common.h"

/* Magnitudes are compared as integers, which order as the floats do, infinity and NaN above all others. What is not finite
 * has no int8 code: it poisons the row (s = NaN, so every product is NaN) instead of becoming some number. */
void quantize_f32_scalar(const float *x, int64_t cols, int8_t *q, float *s, int32_t *sum_q) {
    uint32_t most = tp_float_bits(1e-5f);
    int32_t sum = 0;
    for (int64_t i = 0; i < cols; i++) {
        const uint32_t m = tp_float_bits(x[i]) & 0x7fffffffu;
        most = m > most ? m : most;
    }
    *sum_q = 0;
    if (most >= TP_INF_BITS) {
        *s = tp_bits_float(TP_NAN_BITS);
        memset(q, 0, (size_t)cols);
        return;
    }
    *s = 127.0f / tp_bits_float(most);
    for (int64_t i = 0; i < cols; i++) {
        const int32_t v = tp_round_even(x[i] * *s);
        q[i] = (int8_t)(v > 127 ? 127 : v < -128 ? -128 : v);
        sum += q[i];
    }
    *sum_q = sum;
}
