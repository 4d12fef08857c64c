/* The cache of 16-bit integers, and attention over it, for AVX2. */
#include "attention16.h"

void attention16_f32_avx2(const tp_attention *a) { attention_body(a); }

void cache16_f32_avx2(const float *k, const float *v, int64_t head_dim, int64_t position,
                      uint8_t *keys, uint8_t *values) {
    cache16_body(k, v, head_dim, position, keys, values);
}
