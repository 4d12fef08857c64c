/* Weights to the bytes of a layout: TL1 and TL2. */
#include "../tl.h"

/* Of 16 rows the bytes stand together: four columns of each are gathered, then worked on as one
 * vector. */
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
                for (int64_t i = 0; i < by; i += 4)
                    pack_16(codes + r * w->cols + block + i, w->cols, to + 4 * i);
        }
}

/* |v - 13| as the second nibble and its sign in bit 12; as the first nibble, its sign in bit 14. */
#define SECOND(v) ((v) < 13 ? (13 - (v)) | 1 << 12 : (v)-13)
#define FIRST(v) ((v) < 13 ? (13 - (v)) * 16 | 1 << 14 : ((v)-13) * 16)
#define EACH_8(M, v) \
    M(v), M((v) + 1), M((v) + 2), M((v) + 3), M((v) + 4), M((v) + 5), M((v) + 6), M((v) + 7)
#define EACH_32(M) EACH_8(M, 0), EACH_8(M, 8), EACH_8(M, 16), EACH_8(M, 24)
static const uint16_t nibble[2][32] = {{EACH_32(FIRST)}, {EACH_32(SECOND)}};

/* Of the first six codes of a word: the byte, and the signs in bits 14 and 12. 9 a + 3 b + c of
 * each triple is 0 .. 26 and stands in bytes 2 and 5 of the product; no sum of codes times 9, 3,
 * 1 carries. */
static inline unsigned six(uint64_t codes) {
    const uint64_t v = codes * (9 << 16 | 3 << 8 | 1);
    return nibble[0][v >> 16 & 31] | nibble[1][v >> 40 & 31];
}

/* 24 columns of a row: four bytes of nibbles, and the signs, that of triple k in bit 14 - 2 k. */
static inline unsigned pack_24(const int8_t *codes, uint8_t *restrict nibbles) {
    const uint64_t low = codes8(codes), middle = codes8(codes + 8), high = codes8(codes + 16);
    const unsigned a = six(low), b = six(low >> 48 | middle << 16),
                   d = six(middle >> 32 | high << 32), e = six(high >> 16);
    nibbles[0] = (uint8_t)a, nibbles[32] = (uint8_t)b, nibbles[64] = (uint8_t)d,
    nibbles[96] = (uint8_t)e;
    return (a & 0x5000) | (b >> 4 & 0x500) | (d >> 8 & 0x50) | e >> 12;
}

/* BK columns of rows r and r + 16 of a block, which share the words of their signs. */
static inline void pack_threes(const int8_t *one, const int8_t *other, int64_t BK,
                               uint8_t *restrict nibbles, int64_t r, uint8_t *restrict words) {
    for (int64_t c = 0; c < BK; c += 24, one += 24, other += 24, nibbles += 128, words += 32) {
        const unsigned signs = pack_24(one, nibbles + tl2_position(r)) << 1 |
                               pack_24(other, nibbles + tl2_position(r + 16));
        const uint16_t word = (uint16_t)signs;
        memcpy(words, &word, 2);
    }
}

void pack_tl2_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    const int64_t BK = tile_of(w).BK;
    for (int64_t first = 0; first < w->rows; first += 32) {
        tl2_block b = tl2_block_of(w, first);
        for (int64_t c = 0; c < b.threes;
             c += BK, b.nibbles += b.next_nibbles, b.signs += b.next_signs)
            for (int64_t r = 0; r < 16; r++) {
                const int8_t *one = codes + (first + r) * w->cols + c, *other = one + 16 * w->cols;
                tl_prefetch(one + BK);
                tl_prefetch(other + BK);
                pack_threes(one, other, BK, body + b.nibbles, r, body + b.signs + tl2_word(r));
            }
        for (int64_t c = b.threes; c < w->cols; c += 32, b.pairs += b.next_pairs)
            for (int64_t r = first; r < first + 32; r++)
                for (int q = 0; q < 8; q++)
                    body[b.pairs + 32 * q + tl2_position(r)] =
                        tl_pairs_byte(codes + r * w->cols + c + 4 * q);
    }
}
