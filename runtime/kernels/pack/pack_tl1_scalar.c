#include "../tl.h"

void pack_tl1_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    const tp_tile t = tile_of(w);
    for (int64_t r = 0; r < w->rows; r++, codes += w->cols) {
        uint8_t *row = body + tl1_row(t, w->cols, r);
        for (int64_t c = 0; c < w->cols; c += 256 / t.bm) {
            uint8_t *to = row + tl1_block(t, c);
            for (int64_t i = 0; i < 256 / t.bm; i += 4, to += 16) *to = tl_pairs_byte(codes + c + i);
        }
    }
}
