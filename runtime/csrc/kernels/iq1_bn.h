/* IQ1_BN: a row is its f16 scale, then 13 bytes for every 64 columns. Bytes 3 g + t hold columns
 * 16 g + 5 t to 16 g + 5 t + 4, the thirteenth columns 15, 31, 47 and 63; here the first column
 * is the *least* significant trit. */
#ifndef TRITPACK_IQ1_BN_H
#define TRITPACK_IQ1_BN_H

#include "codes.h"
#include "trits.h"

enum { IQ1_BN_SCALE = 2, IQ1_BN_BYTES = 13 };

static inline int64_t iq1_bn_row(int64_t cols, int64_t row) {
    return row * (IQ1_BN_SCALE + cols / 64 * IQ1_BN_BYTES) + IQ1_BN_SCALE;
}

#endif
