/* Codes by the word: weights -1, 0, +1 in its bytes become 0, 1, 2. Two bits a byte are kept, so
 * that nothing carries. */
#ifndef TRITPACK_CODES_H
#define TRITPACK_CODES_H

#include "common.h"

static inline uint32_t codes4(const int8_t *weights /* (4) */) {
    uint32_t word;
    memcpy(&word, weights, 4);
    return ((word & 0x03030303u) + 0x01010101u) & 0x03030303u;
}

static inline uint64_t codes8(const int8_t *weights /* (8) */) {
    uint64_t word;
    memcpy(&word, weights, 8);
    return ((word & UINT64_C(0x0303030303030303)) + UINT64_C(0x0101010101010101)) &
           UINT64_C(0x0303030303030303);
}

#endif
