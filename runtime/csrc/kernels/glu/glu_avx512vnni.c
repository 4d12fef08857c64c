/* Gated activations, for AVX-512 VNNI. */
#include "glu.h"

void glu_f32_avx512vnni(const float *gate, const float *up, int64_t cols, int activation,
                        float *y) {
    glu_body(gate, up, cols, activation, y);
}
