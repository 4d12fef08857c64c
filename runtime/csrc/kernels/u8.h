/* Plain codes, one a byte: what unpack kernels give. Rows are padded to whole blocks of 128, and
 * what stands there meets activations of 0. Code 3 is never written; every kernel counts it as
 * 3. */
#ifndef TRITPACK_U8_H
#define TRITPACK_U8_H

#include "common.h"

static inline const uint8_t *u8_row(const tp_tensor *w, int64_t r) {
    return (const uint8_t *)w->data + r * w->cols;
}

static inline int32_t u8_dot(const uint8_t *codes /* (cols) */, const int8_t *q /* (cols) */,
                             int64_t cols) {
    int32_t sum = 0;
    for (int64_t c = 0; c < cols; c++) sum += codes[c] * q[c];
    return sum;
}

#endif
