/* A checksum for tensors that are written in pieces, in any order: of what a killed run has left,
 * it tells which tensors are whole. */
#include "internal.h"

uint64_t tp_checksum(const void *bytes, uint64_t nbytes, uint64_t first_word) {
    const tp_kernel *k = tp_kernel_best(TP_OP_CHECKSUM, TP_LAYOUT_U8, tp_best_isa());
    const uint64_t words = nbytes / 8;
    uint64_t sum = words ? k->checksum(bytes, words, first_word) : 0;
    if (nbytes % 8) {
        uint8_t last[8] = {0};
        memcpy(last, (const uint8_t *)bytes + 8 * words, nbytes % 8);
        sum += k->checksum(last, 1, first_word + words);
    }
    return sum;
}
