#include "../tl.h"

/* Of 16 rows the bytes stand together: four columns of each are gathered, then worked on as one vector. */
static inline void pack_16(const int8_t *codes, int64_t cols, uint8_t *to) {
    uint8_t bytes[16];
    for (int r = 0; r < 16; r++) bytes[r] = tl_pairs_byte(codes + r * cols);
    memcpy(to, bytes, 16);
}

void pack_tl1_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    const tp_tile t = tile_of(w);
    const int64_t by = 256 / t.bm;
    for (int64_t r = 0; r < w->rows; r += 16)
        for (int64_t c = 0; c < w->cols; c += t.BK) {
            uint8_t *to = body + tl1_row(t, w->cols, r) + c / t.BK * (t.BM * t.BK / 4);
            for (int64_t block = c; block < c + t.BK; block += by, to += TL1_BLOCK)
                for (int64_t i = 0; i < by; i += 4) pack_16(codes + r * w->cols + block + i, w->cols, to + 4 * i);
        }
}
