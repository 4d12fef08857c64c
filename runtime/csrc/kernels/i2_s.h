/* I2_S: blocks of 128 weights in 32 bytes; byte p holds weights p, 32 + p, 64 + p, 96 + p in
 * bits 7-6, 5-4, 3-2, 1-0, code = weight + 1. Rows are whole blocks. Code 3 is never written;
 * every kernel counts it as 3. */
#ifndef TRITPACK_I2_S_H
#define TRITPACK_I2_S_H

#include "common.h"

static inline const uint8_t *i2_s_row(const tp_tensor *w, int64_t r) {
    return (const uint8_t *)w->data + r * (w->cols / 4);
}

static inline int32_t i2_s_dot(const uint8_t *codes /* (cols / 4) */, const int8_t *q /* (cols) */,
                               int64_t cols) {
    int32_t sum = 0;
    for (int64_t b = 0; b < cols / 128; b++)
        for (int g = 0; g < 4; g++)
            for (int p = 0; p < 32; p++)
                sum += (codes[32 * b + p] >> (6 - 2 * g) & 3) * q[128 * b + 32 * g + p];
    return sum;
}

#endif
