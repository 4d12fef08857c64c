/* Checksums of words and their places in plain C: the specification. */
#include "checksum.h"

uint64_t checksum_u8_scalar(const uint8_t *from, uint64_t words, uint64_t first) {
    return checksum_words(from, words, first);
}
