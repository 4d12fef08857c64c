#include "../iq1_bn.h"

/* q of five codes in the low bytes of a word, the first one's weight being 1: byte 4 of this product is the sum of byte k
 * times 3^k, and no sum below it carries. */
static inline uint8_t number(uint64_t codes) { return (uint8_t)(codes * (UINT64_C(1) << 32 | 3 << 24 | 9 << 16 | 27 << 8 | 81) >> 32); }

void pack_iq1_bn_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    for (int64_t r = 0; r < w->rows; r++) {
        uint8_t *const row = body + iq1_bn_row(w->cols, r), *to = row;
        for (int64_t c = 0; c < w->cols; c += 64, codes += 64, to += IQ1_BN_BYTES) {
            uint64_t last = 0;
            for (int g = 0; g < 4; g++) {
                const uint64_t low = codes8(codes + 16 * g), high = codes8(codes + 16 * g + 8);
                to[3 * g] = number(low);
                to[3 * g + 1] = number(low >> 40 | high << 24);
                to[3 * g + 2] = number(high >> 16);
                last |= high >> 56 << 8 * g;
            }
            to[12] = number(last);
        }
        for (int64_t i = 0; i < to - row; i++) row[i] = trits_byte(row[i]);
    }
}
