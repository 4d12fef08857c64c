/* Gated activations, for AVX2. */
#include "glu.h"

void glu_f32_avx2(const float *gate, const float *up, int64_t cols, int activation, float *y) {
    glu_body(gate, up, cols, activation, y);
}
