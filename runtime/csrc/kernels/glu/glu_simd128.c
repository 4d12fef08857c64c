/* Gated activations, for WebAssembly's SIMD128. */
#include "glu.h"

void glu_f32_simd128(const float *gate, const float *up, int64_t cols, int activation, float *y) {
    glu_body(gate, up, cols, activation, y);
}
