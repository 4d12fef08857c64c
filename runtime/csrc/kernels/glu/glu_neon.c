/* Gated activations, for NEON. */
#include "glu.h"

void glu_f32_neon(const float *gate, const float *up, int64_t cols, int activation, float *y) {
    glu_body(gate, up, cols, activation, y);
}
