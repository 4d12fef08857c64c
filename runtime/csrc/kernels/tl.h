/* TL1 and TL2 of bitnet.cpp: tiles of BM rows by BK columns. A pair of codes (a, b) is the
 * nibble 3 a + b; a byte has the pair of columns c, c + 1 in its high nibble and that of c + 2,
 * c + 3 in its low one.
 *
 * Both are walked by the blocks of rows that stand together, then by column tiles, then by rows:
 * a tile of the block stays in the first cache meanwhile. Those of a whole row would not: they
 * are often a multiple of 4 kB apart. */
#ifndef TRITPACK_TL_H
#define TRITPACK_TL_H

#include "codes.h"

typedef struct tp_tile {
    int64_t BM, BK, bm;
} tp_tile;
static inline tp_tile tile_of(const tp_tensor *w) {
    return (tp_tile){w->tile[0], w->tile[1], w->tile[2]};
}

/* The next tile of a row: too many rows take turns for the hardware to see their streams. */
static inline void tl_prefetch(const void *p) {
    __builtin_prefetch(p);
    __builtin_prefetch((const void *)((uintptr_t)p + 64));
}

/* The end of the block of `height` rows that holds row r, or of what is asked for. */
static inline int64_t tl_block_end(int64_t r, int64_t height, int64_t row1) {
    const int64_t end = (r / height + 1) * height;
    return end < row1 ? end : row1;
}

/* Four codes of 0 .. 2, the first in the low byte, of a pair's byte; nibbles above 8 give 3, 3. */
#define TP_PAIR(n) ((n) > 8 ? 0x0303u : (unsigned)((n) / 3 | (n) % 3 << 8))
#define TP_QUAD(x) (TP_PAIR((x) >> 4) | TP_PAIR((x)&15) << 16)
#define TP_QUADS_4(x) TP_QUAD(x), TP_QUAD((x) + 1), TP_QUAD((x) + 2), TP_QUAD((x) + 3)
#define TP_QUADS_16(x) TP_QUADS_4(x), TP_QUADS_4((x) + 4), TP_QUADS_4((x) + 8), TP_QUADS_4((x) + 12)
#define TP_QUADS_64(x) \
    TP_QUADS_16(x), TP_QUADS_16((x) + 16), TP_QUADS_16((x) + 32), TP_QUADS_16((x) + 48)
__attribute__((unused)) static const uint32_t tl_quads[256] = {TP_QUADS_64(0), TP_QUADS_64(64),
                                                               TP_QUADS_64(128), TP_QUADS_64(192)};

/* The other way: 3 a + b stands in byte 0 of the word, and that of the second pair in byte 2. */
static inline uint8_t tl_pairs_byte(const int8_t *weights /* (4) */) {
    const uint32_t codes = codes4(weights), word = 3 * codes + (codes >> 8);
    return (uint8_t)((word & 15) << 4 | (word >> 16 & 15));
}

/* ---- tl1 ---- */

enum { TL1_BLOCK = 64 }; /* bytes of bm rows by 256 / bm columns */

/* Where row r's byte of columns 0 to 3 stands. That of the next four is 16 bytes after it, up to
 * 256 / bm columns; the next such block is TL1_BLOCK bytes further, the next tile of BK columns
 * BM * BK / 4. */
static inline int64_t tl1_row(tp_tile t, int64_t cols, int64_t r) {
    const int64_t in_tile = r % t.BM, in_block = in_tile % t.bm;
    return r / t.BM * t.BM * (cols / 4) + in_tile / t.bm * t.bm * (t.BK / 4) +
           in_block / 16 * (16 * 64 / t.bm) + in_block % 16;
}

/* ---- tl2 ---- */

/* Offsets of a block of 32 rows in the three parts of the body, and what leads to its next
 * column tile there. Columns below `threes` are nibbles and signs in tiles of BK, the others
 * pairs in tiles of 32. */
typedef struct tl2_block {
    int64_t threes, nibbles, signs, pairs;
    int64_t next_nibbles, next_signs, next_pairs;
} tl2_block;

static inline tl2_block tl2_block_of(const tp_tensor *w, int64_t r) {
    const tp_tile t = tile_of(w);
    const int64_t threes = w->cols / t.BK * t.BK, rest = w->cols - threes, tile = r / t.BM * t.BM,
                  block = r % t.BM / 32 * 32;
    const int64_t signs = w->rows * threes / 6, pairs = signs + w->rows * threes / 24;
    return (tl2_block){
        .threes = threes,
        .nibbles = tile * threes / 6 + block * t.BK / 6,
        .signs = signs + tile * threes / 24 + block * t.BK / 24,
        .pairs = pairs + tile * rest / 4 + block * 8,
        .next_nibbles = t.BM * t.BK / 6,
        .next_signs = t.BM * t.BK / 24,
        .next_pairs = t.BM * 8,
    };
}

/* Where a row of the block stands among its 32: in the order 0-7, 16-23, 8-15, 24-31. */
static inline int64_t tl2_position(int64_t r) {
    return r % 32 / 8 == 1 ? r % 32 + 8 : r % 32 / 8 == 2 ? r % 32 - 8 : r % 32;
}

/* Signs of 24 columns are 32 bytes: word r mod 16 has those of rows r and r + 16, a bit apart. */
static inline int64_t tl2_word(int64_t r) { return r % 16 * 2; }
static inline int tl2_shift(int64_t r) { return r % 32 < 16; }

/* Activations as TL2's products take them: what a nibble adds, for every three columns and then
 * for every two of the last TL2_PAIRED, since where the pairs begin depends on the tile. A table
 * is 16 int16, their low bytes before their high ones. */
enum { TL2_TABLE = 32, TL2_PAIRED = 256 };

static inline int64_t tl2_tables_bytes(int64_t cols) {
    return (cols / 3 + TL2_PAIRED / 2) * TL2_TABLE;
}
static inline const uint8_t *tl2_pair_tables(const void *acts, int64_t cols, int64_t c) {
    return (const uint8_t *)acts + (cols / 3 + (c - (cols - TL2_PAIRED)) / 2) * TL2_TABLE;
}

#endif
