#include "../tl.h"

/* 9 a + 3 b + c of two triples of codes, each 0 .. 26, in bytes 2 and 5; no sum of codes times 9, 3, 1 carries. */
static inline uint64_t two_triples(const int8_t *weights /* (6) */) { return codes8(weights, 6) * (9 << 16 | 3 << 8 | 1); }

void pack_tl2_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    const tp_tile t = tile_of(w);
    for (int64_t r = 0; r < w->rows; r++, codes += w->cols) {
        const tl2_parts p = tl2_parts_of(w, r);
        for (int64_t c = 0, tile = 0; c < p.threes; tile++)
            for (int64_t end = c + t.BK, in = 0; c < end; c += 24, in++) {
                uint8_t *nibbles = body + p.row_nibble + tile * p.tile_nibble + in * 128;
                uint8_t *word = body + p.row_sign + tile * p.tile_sign + in * 32;
                unsigned signs = 0;             /* triple k in bit 14 - 2 k */
                for (int six = 0; six < 4; six++) {
                    const uint64_t v = two_triples(codes + c + 6 * six);
                    const int first = (int)(v >> 16 & 31) - 13, second = (int)(v >> 40 & 31) - 13;
                    nibbles[32 * six] = (uint8_t)((first < 0 ? -first : first) << 4 | (second < 0 ? -second : second));
                    signs = signs << 4 | (unsigned)(first < 0) << 2 | (unsigned)(second < 0);
                }
                const uint16_t both = (uint16_t)(tp_load_u16(word) | signs << p.shift);     /* rows r and r + 16 share it */
                memcpy(word, &both, 2);
            }
        for (int64_t c = p.threes, tile = 0; c < w->cols; tile++)
            for (int q = 0; q < 8; q++, c += 4) body[p.row_pair + tile * p.tile_pair + 32 * q] = tl_pairs_byte(codes + c);
    }
}
