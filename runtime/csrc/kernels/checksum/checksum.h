/* A checksum of words and their places, which the compiler vectorises for each instruction set. */
#ifndef TRITPACK_CHECKSUM_H
#define TRITPACK_CHECKSUM_H

#include "../common.h"

/* A bijection of the word for each index, so that no change of one word goes unnoticed. The
 * multipliers are those of SplitMix64's step and MurmurHash3's finaliser. */
TP_INLINE uint64_t checksum_mix(uint64_t word, uint64_t index) {
    uint64_t x = word + (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 32) * UINT64_C(0xff51afd7ed558ccd);
    return x ^ x >> 29;
}

TP_INLINE uint64_t checksum_words(const uint8_t *from, uint64_t words, uint64_t first) {
    uint64_t sum = 0, word;
    for (uint64_t i = 0; i < words; i++) {
        memcpy(&word, from + 8 * i, 8);
        sum += checksum_mix(word, first + i);
    }
    return sum;
}

#endif
