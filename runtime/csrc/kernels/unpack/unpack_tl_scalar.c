/* The bytes of a layout to codes: TL1 and TL2. */
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
                const uint8_t *from = (const uint8_t *)w->data + tl1_row(t, w->cols, r) +
                                      c / t.BK * (t.BM * t.BK / 4);
                if (t.bm == 32) unpack_tile(from, t.BK, 8, out + (r - row0) * ld + c);
                else unpack_tile(from, t.BK, 4, out + (r - row0) * ld + c);
            }
    }
}

/* The three codes of a triple by its sign and its nibble |9 a + 3 b + c - 13|; nibbles above 13
 * give 3, 3, 3. */
#define VALUE(v) ((uint64_t)((v) / 9 | (v) / 3 % 3 << 8 | (v) % 3 << 16))
#define TRIPLE(minus, n) \
    ((n) > 13 ? UINT64_C(0x030303) : VALUE(minus ? (n) > 13 ? 0 : 13 - (n) : (n) + 13))
/* The six codes of a byte, the signs of its triples in bits 9 and 8 of x. */
#define SIX(x) (TRIPLE((x) >> 9 & 1, (x) >> 4 & 15) | TRIPLE((x) >> 8 & 1, (x)&15) << 24)
#define SIX_4(x) SIX(x), SIX((x) + 1), SIX((x) + 2), SIX((x) + 3)
#define SIX_16(x) SIX_4(x), SIX_4((x) + 4), SIX_4((x) + 8), SIX_4((x) + 12)
#define SIX_64(x) SIX_16(x), SIX_16((x) + 16), SIX_16((x) + 32), SIX_16((x) + 48)
#define SIX_256(x) SIX_64(x), SIX_64((x) + 64), SIX_64((x) + 128), SIX_64((x) + 192)
static const uint64_t sixes[1024] = {SIX_256(0), SIX_256(256), SIX_256(512), SIX_256(768)};

/* Every second bit of a word, from bit 0 on. */
static inline unsigned evens(unsigned word) {
    word &= 0x5555;
    word = (word | word >> 1) & 0x3333;
    word = (word | word >> 2) & 0x0f0f;
    return (word | word >> 4) & 0x00ff;
}

/* BK columns of a row. */
static inline void unpack_threes(const uint8_t *nibbles, const uint8_t *words, int shift,
                                 int64_t BK, uint8_t *out) {
    for (int64_t c = 0; c < BK; c += 24, nibbles += 128, words += 32, out += 24) {
        const unsigned signs =
            evens((unsigned)tp_load_u16(words) >> shift); /* triple k in bit 7 - k */
        const uint64_t a = sixes[nibbles[0] | (signs << 2 & 0x300)],
                       b = sixes[nibbles[32] | (signs << 4 & 0x300)];
        const uint64_t d = sixes[nibbles[64] | (signs << 6 & 0x300)],
                       e = sixes[nibbles[96] | (signs << 8 & 0x300)];
        const uint64_t low = a | b << 48, middle = b >> 16 | d << 32, high = d >> 32 | e << 16;
        memcpy(out, &low, 8);
        memcpy(out + 8, &middle, 8);
        memcpy(out + 16, &high, 8);
    }
}

void unpack_tl2_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    const int64_t BK = tile_of(w).BK;
    const uint8_t *body = w->data;
    for (int64_t first = row0, last; first < row1; first = last) {
        tl2_block b = tl2_block_of(w, first);
        last = tl_block_end(first, 32, row1);
        for (int64_t c = 0; c < b.threes;
             c += BK, b.nibbles += b.next_nibbles, b.signs += b.next_signs)
            for (int64_t r = first; r < last; r++)
                unpack_threes(body + b.nibbles + tl2_position(r), body + b.signs + tl2_word(r),
                              tl2_shift(r), BK, out + (r - row0) * ld + c);
        for (int64_t c = b.threes; c < w->cols; c += 32, b.pairs += b.next_pairs)
            for (int64_t r = first; r < last; r++)
                for (int q = 0; q < 8; q++)
                    memcpy(out + (r - row0) * ld + c + 4 * q,
                           &tl_quads[body[b.pairs + 32 * q + tl2_position(r)]], 4);
    }
}
