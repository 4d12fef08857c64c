/* The Walsh-Hadamard transform in plain C: the specification. */
#include "../common.h"

/* Of each block: butterflies of neighbours first, then of values twice as far apart, each a sum
 * and a difference; last of all one factor 1 / sqrt(block). */
void hadamard_f32_scalar(const float *x, const float *before, const float *after, int64_t cols,
                         int64_t block, float *y) {
    for (int64_t i = 0; i < cols; i++) y[i] = before ? x[i] * before[i] : x[i];
    for (int64_t width = 1; width < block; width *= 2)
        for (int64_t at = 0; at < cols; at += 2 * width)
            for (int64_t i = at; i < at + width; i++) {
                const float a = y[i], b = y[i + width];
                y[i] = a + b;
                y[i + width] = a - b;
            }
    const float scale = (float)(1.0 / __builtin_sqrt((double)block));
    for (int64_t i = 0; i < cols; i++) {
        y[i] *= scale;
        if (after) y[i] *= after[i];
    }
}
