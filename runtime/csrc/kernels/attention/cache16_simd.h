/* Keys, queries and values to 16-bit integers, as cache16_f32_scalar says. */
#ifndef TRITPACK_CACHE16_SIMD_H
#define TRITPACK_CACHE16_SIMD_H

#include "../simd_f32/lanes16.h"
#include "cache16.h"

TP_INLINE lanes columns(const float *x, int64_t i, int64_t n) {
    return i + 16 <= n ? lanes_load(x + i) : lanes_load_n(x + i, n - i);
}

TP_INLINE void to_integers(const float *x, int64_t n, int64_t dim, float step,
                           int16_t *q /* (dim) */) {
    const float inverse = inverse_step(step);
    const lanes by = lanes_splat(inverse);
    for (int64_t i = 0; i < dim; i += 16) {
        if (inverse > 0) lanes_store_i16(q + i, lanes_mul(columns(x, i, n), by));
        else memset(q + i, 0, 32);
    }
}

TP_INLINE float step_of_key(const float *x, int64_t n) {
    lanes squares = lanes_splat(0.0f), highest = squares;
    for (int64_t i = 0; i < n; i += 16) {
        const lanes here = columns(x, i, n);
        squares = lanes_add(squares, lanes_mul(here, here));
        highest = lanes_max(lanes_abs(here), highest);
    }
    return key_step(lanes_highest(highest), lanes_tree(squares));
}

TP_INLINE float step_of_value(const float *x, int64_t n) {
    vi highest = {0};
    for (int64_t i = 0; i < n; i += 16) highest = vi_magnitudes(highest, columns(x, i, n));
    return value_step(tp_bits_float(vi_highest(highest)));
}

TP_INLINE void cache16_all(const float *k, const float *v, const int64_t head_dim, int64_t position,
                           uint8_t *keys, uint8_t *values) {
    const int64_t dim = cache16_dim(head_dim);
    int16_t q[16 * 16], *const key = (int16_t *)(void *)keys,
                               *const value = (int16_t *)(void *)values;
    const cache16_steps steps =
        steps_together(step_of_key(k, head_dim), step_of_value(v, head_dim));
    for (int64_t i = 0; i < head_dim; i += 256) {
        const int64_t n = head_dim - i < 256 ? head_dim - i : 256;
        to_integers(k + i, n, cache16_dim(n), steps.k, q);
        for (int64_t j = 0; j < n; j += 2) memcpy(key + cache16_key(position, i + j), q + j, 4);
        to_integers(v + i, n, cache16_dim(n), steps.v, q);
        for (int64_t j = 0; j < n; j++) value[cache16_value(position, i + j, dim)] = q[j];
    }
    memcpy(keys + 32 * dim + 4 * position, &steps.k, 4);
    memcpy(values + 32 * dim + 4 * position, &steps.v, 4);
}

TP_INLINE void cache16_body(const float *k, const float *v, int64_t head_dim, int64_t position,
                            uint8_t *keys, uint8_t *values) {
    if (head_dim == 128) cache16_all(k, v, 128, position, keys, values);
    else cache16_all(k, v, head_dim, position, keys, values);
}

#endif
