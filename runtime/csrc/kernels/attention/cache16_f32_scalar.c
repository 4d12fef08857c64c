#include "cache16.h"

/* Steps as in cache16.h, integers round(x * (1 / step)), or zeros where the step is 0 (or as good as that) or NaN. */
void cache16_f32_scalar(const float *k, const float *v, int64_t head_dim, int64_t position, uint8_t *keys, uint8_t *values) {
    const int64_t dim = cache16_dim(head_dim);
    int16_t *const key = (int16_t *)(void *)keys, *const value = (int16_t *)(void *)values;
    uint32_t highest = 0;       /* as in quantize_f32_scalar.c */
    for (int64_t i = 0; i < head_dim; i++) {
        const uint32_t m = tp_float_bits(v[i]) & 0x7fffffffu;
        highest = m > highest ? m : highest;
    }
    const cache16_steps steps = steps_together(key_step_of(k, head_dim), value_step(tp_bits_float(highest)));
    const float by_k = inverse_step(steps.k), by_v = inverse_step(steps.v);
    for (int64_t i = 0; i < head_dim; i++) {
        key[cache16_key(position, i)] = to_int16(k[i], by_k);
        value[cache16_value(position, i, dim)] = to_int16(v[i], by_v);
    }
    memcpy(keys + 32 * dim + 4 * position, &steps.k, 4);
    memcpy(values + 32 * dim + 4 * position, &steps.v, 4);
}
