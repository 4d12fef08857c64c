/* Activations to int8, for WebAssembly's SIMD128. */
#include "quantize.h"

void quantize_f32_simd128(const float *x, int64_t cols, int8_t *q, float *s, int32_t *sum_q) {
    quantize_body(x, cols, q, s, sum_q);
}
