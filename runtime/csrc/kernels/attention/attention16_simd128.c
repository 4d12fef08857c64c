/* The cache of 16-bit integers, and attention over it, for WebAssembly's SIMD128. */
#include "attention16.h"

void cache16_f32_simd128(const float *k, const float *v, int64_t head_dim, int64_t position,
                         uint8_t *keys, uint8_t *values) {
    cache16_body(k, v, head_dim, position, keys, values);
}

void attention16_f32_simd128(const tp_attention *a) { attention_body(a); }
