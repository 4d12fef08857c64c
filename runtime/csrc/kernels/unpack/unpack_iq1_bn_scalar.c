#include "../iq1_bn.h"

/* The five codes of a byte, the least significant trit first: (243 x) div 256 to base 3. */
#define Q(x) ((uint64_t)(243 * (x) / 256))
#define CODES(x) (Q(x) % 3 | Q(x) / 3 % 3 << 8 | Q(x) / 9 % 3 << 16 | Q(x) / 27 % 3 << 24 | Q(x) / 81 % 3 << 32)
#define CODES_4(x) CODES(x), CODES((x) + 1), CODES((x) + 2), CODES((x) + 3)
#define CODES_16(x) CODES_4(x), CODES_4((x) + 4), CODES_4((x) + 8), CODES_4((x) + 12)
#define CODES_64(x) CODES_16(x), CODES_16((x) + 16), CODES_16((x) + 32), CODES_16((x) + 48)
static const uint64_t five[256] = {CODES_64(0), CODES_64(64), CODES_64(128), CODES_64(192)};

void unpack_iq1_bn_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const uint8_t *from = (const uint8_t *)w->data + iq1_bn_row(w->cols, r);
        for (int64_t c = 0; c < w->cols; c += 64, from += IQ1_BN_BYTES) {
            const uint64_t last = five[from[12]];
            for (int g = 0; g < 4; g++) {       /* 16 columns: two words, the sixteenth code from the thirteenth byte */
                const uint64_t a = five[from[3 * g]], b = five[from[3 * g + 1]], d = five[from[3 * g + 2]];
                const uint64_t words[2] = {a | b << 40, b >> 24 | d << 16 | (last >> 8 * g & 255) << 56};
                memcpy(out + c + 16 * g, words, 16);
            }
        }
    }
}
