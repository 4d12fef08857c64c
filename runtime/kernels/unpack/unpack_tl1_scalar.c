#include "../tl.h"

void unpack_tl1_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    const tp_tile t = tile_of(w);
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const uint8_t *row = (const uint8_t *)w->data + tl1_row(t, w->cols, r);
        for (int64_t c = 0; c < w->cols; c += 256 / t.bm) {
            const uint8_t *from = row + tl1_block(t, c);
            for (int64_t i = 0; i < 256 / t.bm; i += 4, from += 16) memcpy(out + c + i, &tl_quads[*from], 4);
        }
    }
}
