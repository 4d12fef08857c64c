#include "../iq2_bn_r4.h"

void unpack_iq2_bn_r4_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const uint8_t *from = (const uint8_t *)w->data + iq2_bn_r4_row(w->cols, r);
        for (int64_t c = 0; c < w->cols; c += 16, from += 16) {
            uint32_t word, codes[4];
            memcpy(&word, from, 4);
            for (int plane = 0; plane < 4; plane++) codes[plane] = word >> 2 * plane & 0x03030303u;
            memcpy(out + c, codes, 16);
        }
    }
}
