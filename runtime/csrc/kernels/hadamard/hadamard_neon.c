/* The Walsh-Hadamard transform, for NEON. */
#include "hadamard.h"

void hadamard_f32_neon(const float *x, const float *before, const float *after, int64_t cols,
                       int64_t block, float *y) {
    hadamard_body(x, before, after, cols, block, y);
}
