/* IQ2_BN_R4: four rows together, their scales in front. Of 64 columns byte 16 l + 4 k + i holds,
 * of row k, columns 16 l + i, + 4, + 8, + 12, the first in the low bits: words of four bytes,
 * which are bit planes of width 4 (planes.h has other widths). */
#ifndef TRITPACK_IQ2_BN_R4_H
#define TRITPACK_IQ2_BN_R4_H

#include "codes.h"

/* The word of columns 0 to 15 of a row; that of the next 16 stands 16 bytes after it. */
static inline int64_t iq2_bn_r4_row(int64_t cols, int64_t row) {
    return row / 4 * (16 + cols) + 16 + row % 4 * 4;
}

#endif
