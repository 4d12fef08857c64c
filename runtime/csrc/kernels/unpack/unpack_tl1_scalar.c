#include "../tl.h"

/* BK columns of a row, in blocks of `by`. */
TP_INLINE void unpack_tile(const uint8_t *from, int64_t BK, int by, uint8_t *out) {
    for (const uint8_t *const end = out + BK; out < end; out += by, from += TL1_BLOCK)
        for (int i = 0; i < by; i += 4) memcpy(out + i, &tl_quads[from[4 * i]], 4);
}

void unpack_tl1_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    const tp_tile t = tile_of(w);
    for (int64_t first = row0, last; first < row1; first = last) {
        last = tl_block_end(first, t.bm, row1);
        for (int64_t c = 0; c < w->cols; c += t.BK)
            for (int64_t r = first; r < last; r++) {
                const uint8_t *from = (const uint8_t *)w->data + tl1_row(t, w->cols, r) + c / t.BK * (t.BM * t.BK / 4);
                if (t.bm == 32) unpack_tile(from, t.BK, 8, out + (r - row0) * ld + c);
                else unpack_tile(from, t.BK, 4, out + (r - row0) * ld + c);
            }
    }
}
