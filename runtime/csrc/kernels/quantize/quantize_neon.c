/* Activations to int8, for NEON. */
#include "quantize.h"

void quantize_f32_neon(const float *x, int64_t cols, int8_t *q, float *s, int32_t *sum_q) {
    quantize_body(x, cols, q, s, sum_q);
}
