/* Activations to int8 and int16 in plain C: the specification. */
#include "../quants.h"

/* Magnitudes are compared as integers, which order as the floats do, infinity and NaN above all
 * others. What is not finite has no int8 code: it poisons the row (s = NaN, so every product is
 * NaN) instead of becoming some number. */
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

/* 16-bit activations of the q8_0, q6_k and q4_k heads: per block of 256, a = max|x|, step = a /
 * 32767, q = clip(round_half_even(x * (32767 / a)), -32767, 32767); a block with a < 1e-30
 * counts as zero; in one with NaN or an infinity step = NaN, q = 0, so that every product is
 * NaN. */
void quantize16_f32_scalar(const float *x, int64_t cols, int16_t *q, float *step, int32_t *bias) {
    const int64_t padded = (cols + 63) / 64 * 64;
    for (int64_t i = cols; i < padded; i++) q[acts16_index(i)] = 0;
    for (int64_t b = 0; b * 256 < cols; b++) {
        const int64_t end = b * 256 + 256 < cols ? b * 256 + 256 : cols;
        uint32_t most = 0; /* as in quantize_f32_scalar */
        for (int64_t i = b * 256; i < end; i++) {
            const uint32_t m = tp_float_bits(x[i]) & 0x7fffffffu;
            most = m > most ? m : most;
        }
        if (most >= TP_INF_BITS) {
            step[b] = tp_bits_float(TP_NAN_BITS);
            for (int64_t i = b * 256; i < end; i++) q[acts16_index(i)] = 0;
            continue;
        }
        const float a = tp_bits_float(most), s = a < 1e-30f ? 0.0f : 32767.0f / a;
        step[b] = a < 1e-30f ? 0.0f : a / 32767.0f;
        for (int64_t i = b * 256; i < end; i++) {
            const int32_t v = tp_round_even(x[i] * s);
            q[acts16_index(i)] = (int16_t)(v > 32767 ? 32767 : v < -32767 ? -32767 : v);
        }
    }
    for (int64_t i = 0; i < padded / 4; i++) {
        int32_t sum = 0;
        for (int j = 0; j < 4; j++) sum += q[acts16_index(4 * i + j)];
        bias[i] = -32 * sum;
    }
}
