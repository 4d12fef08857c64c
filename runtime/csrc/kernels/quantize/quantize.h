/* Activation quantisation. */
#ifndef TRITPACK_QUANTIZE_H
#define TRITPACK_QUANTIZE_H

#include "../simd_f32/lanes16.h"

/* Sixteen codes, and their sum on top of `sum` (none is beyond int8: s is 127 / the highest
 * magnitude). */
TP_INLINE vi quantize16(lanes x, vf s, int8_t *q, vi sum) {
    vi n[LANES_PARTS];
#pragma GCC unroll 4
    for (int i = 0; i < LANES_PARTS; i++) {
        n[i] = vf_round(x.v[i] * s);
        sum += n[i];
    }
    vi_store_i8(q, n);
    return sum;
}

TP_INLINE void quantize_body(const float *x, int64_t cols, int8_t *q, float *s, int32_t *sum_q) {
    vi seen = (vi)vf_splat(1e-5f), sum = {0};
    int64_t i = 0;
    for (; i + 16 <= cols; i += 16) seen = vi_magnitudes(seen, lanes_load(x + i));
    if (i < cols) seen = vi_magnitudes(seen, lanes_load_n(x + i, cols - i));
    int32_t total = 0;
    const uint32_t most = vi_highest(seen);
    if (most >= TP_INF_BITS) {
        *s = tp_bits_float(TP_NAN_BITS);
        *sum_q = 0;
        memset(q, 0, (size_t)cols);
        return;
    }
    *s = 127.0f / tp_bits_float(most);
    const vf by = vf_splat(*s);
    for (i = 0; i + 16 <= cols; i += 16) sum = quantize16(lanes_load(x + i), by, q + i, sum);
    if (i < cols) {
        int8_t last[16];
        sum = quantize16(lanes_load_n(x + i, cols - i), by, last, sum);
        memcpy(q + i, last, (size_t)(cols - i));
    }
    for (int j = 0; j < LANES_NATIVE; j++) total += sum[j];
    *sum_q = total;
}

#endif
