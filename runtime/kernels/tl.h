/* TL1 and TL2 of bitnet.cpp: tiles of BM rows by BK columns. A pair of codes (a, b) is the nibble 3 a + b; a byte has the pair
 * of columns c, c + 1 in its high nibble and that of c + 2, c + 3 in its low one. Both layouts are walked row by row: the
 * bytes of the rows that stand together stay in the first cache meanwhile. */
#ifndef TRITPACK_TL_H
#define TRITPACK_TL_H

#include "codes.h"

typedef struct tp_tile { int64_t BM, BK, bm; } tp_tile;
static inline tp_tile tile_of(const tp_tensor *w) { return (tp_tile){w->tile[0], w->tile[1], w->tile[2]}; }

/* Four codes of 0 .. 2, the first in the low byte, of a pair's byte; nibbles above 8 give 3, 3. */
#define TP_PAIR(n) ((n) > 8 ? 0x0303u : (unsigned)((n) / 3 | (n) % 3 << 8))
#define TP_QUAD(x) (TP_PAIR((x) >> 4) | TP_PAIR((x) & 15) << 16)
#define TP_QUADS_4(x) TP_QUAD(x), TP_QUAD((x) + 1), TP_QUAD((x) + 2), TP_QUAD((x) + 3)
#define TP_QUADS_16(x) TP_QUADS_4(x), TP_QUADS_4((x) + 4), TP_QUADS_4((x) + 8), TP_QUADS_4((x) + 12)
#define TP_QUADS_64(x) TP_QUADS_16(x), TP_QUADS_16((x) + 16), TP_QUADS_16((x) + 32), TP_QUADS_16((x) + 48)
__attribute__((unused)) static const uint32_t tl_quads[256] = {TP_QUADS_64(0), TP_QUADS_64(64), TP_QUADS_64(128), TP_QUADS_64(192)};

/* The other way: 3 a + b stands in byte 0 of the word, and that of the second pair in byte 2. */
static inline uint8_t tl_pairs_byte(const int8_t *weights /* (4) */) {
    const uint32_t codes = codes4(weights), word = 3 * codes + (codes >> 8);
    return (uint8_t)((word & 15) << 4 | (word >> 16 & 15));
}

/* ---- tl1 ---- */

/* Of row r: where its byte of columns 0 to 3 stands; tl1_quad adds what leads to those of columns c to c + 3. */
static inline int64_t tl1_row(tp_tile t, int64_t cols, int64_t r) {
    const int64_t in_tile = r % t.BM, in_block = in_tile % t.bm, by = 256 / t.bm;
    return r / t.BM * t.BM * (cols / 4) + in_tile / t.bm * t.bm * (t.BK / 4) + in_block / 16 * (16 * by / 4) + in_block % 16;
}
static inline int64_t tl1_block(tp_tile t, int64_t c) {    /* c: of a block of `by` columns */
    const int64_t by = 256 / t.bm;
    return c / t.BK * (t.BM * t.BK / 4) + c % t.BK / by * (t.bm * by / 4);
}

/* ---- tl2 ---- */

/* The parts of the body, and where row r's bytes are in them. Columns below `threes` stand in threes, the rest in pairs. */
typedef struct tl2_parts {
    int64_t threes, signs, pairs;           /* signs, pairs: offsets */
    int64_t row_nibble, row_sign, row_pair; /* of row r, at its first column */
    int64_t tile_nibble, tile_sign, tile_pair;      /* from one column tile to the next */
    int shift;                              /* of row r's sign bits in its words */
} tl2_parts;

static inline tl2_parts tl2_parts_of(const tp_tensor *w, int64_t r) {
    const tp_tile t = tile_of(w);
    const int64_t threes = w->cols / t.BK * t.BK, rest = w->cols - threes, tile = r / t.BM, block = r % t.BM / 32, in = r % 32;
    const int64_t at = in / 8 == 1 ? in + 8 : in / 8 == 2 ? in - 8 : in;        /* stored in the order 0-7, 16-23, 8-15, 24-31 */
    const int64_t signs = w->rows * threes / 6, pairs = signs + w->rows * threes / 24;
    return (tl2_parts){
        .threes = threes, .signs = signs, .pairs = pairs,
        .row_nibble = tile * t.BM * threes / 6 + block * 32 * t.BK / 6 + at,
        .row_sign = signs + tile * t.BM * threes / 24 + block * 32 * t.BK / 24 + in % 16 * 2,
        .row_pair = pairs + tile * t.BM * rest / 4 + block * 32 * 8 + at,
        .tile_nibble = t.BM * t.BK / 6, .tile_sign = t.BM * t.BK / 24, .tile_pair = t.BM * 8,
        .shift = in < 16,
    };
}

#endif
