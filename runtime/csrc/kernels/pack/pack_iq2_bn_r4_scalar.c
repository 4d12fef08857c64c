#include "../iq2_bn_r4.h"

void pack_iq2_bn_r4_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    for (int64_t r = 0; r < w->rows; r++) {
        uint8_t *to = body + iq2_bn_r4_row(w->cols, r);
        for (int64_t c = 0; c < w->cols; c += 16, codes += 16, to += 16) {
            uint32_t word = 0;
            for (int plane = 0; plane < 4; plane++) word |= codes4(codes + 4 * plane) << 2 * plane;
            memcpy(to, &word, 4);
        }
    }
}
