#include <immintrin.h>

#include "../tl.h"

/* A vector is 32 rows: their nibbles choose from a table of 16 sums in two shuffles, low bytes
 * and high ones, which come together as int16 in the order of rows (tl2_position is made for
 * it). A table's entry is at most 3 * 128, so that GROUPS groups of 24 columns fit. */
enum { GROUPS = 10 };

typedef struct sums {
    __m256i first, second;
} sums; /* int16, rows 0 to 15 and 16 to 31 */

TP_INLINE void look_up(const uint8_t *table, __m256i nibbles, __m256i *first, __m256i *second) {
    const __m256i low = _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table)), nibbles);
    const __m256i high = _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table + 16))), nibbles);
    *first = _mm256_unpacklo_epi8(low, high);
    *second = _mm256_unpackhi_epi8(low, high);
}

/* Triple k of 8: its signs are bits 15 - 2 k and 14 - 2 k of the words. */
TP_INLINE void add_triple(sums *s, const uint8_t *table, __m256i nibbles, __m256i words,
                          const int k) {
    const __m256i one = _mm256_set1_epi16(1);
    __m256i first, second;
    look_up(table, nibbles, &first, &second);
    s->first = _mm256_add_epi16(
        s->first, _mm256_sign_epi16(first, _mm256_or_si256(_mm256_slli_epi16(words, 2 * k), one)));
    s->second = _mm256_add_epi16(
        s->second,
        _mm256_sign_epi16(second, _mm256_or_si256(_mm256_slli_epi16(words, 2 * k + 1), one)));
}

TP_INLINE void add_pair(sums *s, const uint8_t *table, __m256i nibbles) {
    __m256i first, second;
    look_up(table, nibbles, &first, &second);
    s->first = _mm256_add_epi16(s->first, first);
    s->second = _mm256_add_epi16(s->second, second);
}

/* Into int32, eight rows each. */
TP_INLINE void widen(sums *s, __m256i total[4]) {
    total[0] = _mm256_add_epi32(total[0], _mm256_cvtepi16_epi32(_mm256_castsi256_si128(s->first)));
    total[1] =
        _mm256_add_epi32(total[1], _mm256_cvtepi16_epi32(_mm256_extracti128_si256(s->first, 1)));
    total[2] = _mm256_add_epi32(total[2], _mm256_cvtepi16_epi32(_mm256_castsi256_si128(s->second)));
    total[3] =
        _mm256_add_epi32(total[3], _mm256_cvtepi16_epi32(_mm256_extracti128_si256(s->second, 1)));
    s->first = s->second = _mm256_setzero_si256();
}

static inline __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* BK columns of the block. */
TP_INLINE void add_tile(const uint8_t *nibbles, const uint8_t *signs, int64_t BK,
                        const uint8_t *tables, __m256i total[4]) {
    const __m256i low = _mm256_set1_epi8(15);
    sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int64_t c = 0; c < BK;) {
        for (const int64_t stop = c + GROUPS * 24; c < BK && c < stop;
             c += 24, nibbles += 128, signs += 32, tables += 8 * TL2_TABLE) {
            const __m256i words = load(signs);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                const __m256i x = load(nibbles + 32 * j);
                add_triple(&s, tables + 2 * j * TL2_TABLE,
                           _mm256_and_si256(_mm256_srli_epi16(x, 4), low), words, 2 * j);
                add_triple(&s, tables + (2 * j + 1) * TL2_TABLE, _mm256_and_si256(x, low), words,
                           2 * j + 1);
            }
        }
        widen(&s, total);
    }
}

/* Blocks of 32 rows stand together in a tile: BLOCKS of them are walked at once, so that more of
 * what is read lies in a row, and the same rows of a tile further on are asked for meanwhile. */
enum { BLOCKS = 4, TILES_AHEAD = 1 };

static inline void ahead(const uint8_t *p, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const void *)((uintptr_t)p + (uintptr_t)i), 0, 2);
}

/* `blocks` blocks from row `first` on, in one tile. */
static void add_blocks(const tp_tensor *w, int64_t first, int blocks, const void *acts,
                       __m256i total[BLOCKS][4]) {
    const int64_t BK = tile_of(w).BK, nibbles = 32 * BK / 6, signs = 32 * BK / 24;
    const uint8_t *const body = w->data, *tables = acts;
    const __m256i low = _mm256_set1_epi8(15);
    tl2_block b = tl2_block_of(w, first);
    for (int64_t c = 0; c < b.threes; c += BK, b.nibbles += b.next_nibbles, b.signs += b.next_signs,
                 tables += BK / 3 * TL2_TABLE) {
        ahead(body + b.nibbles + TILES_AHEAD * b.next_nibbles, blocks * nibbles);
        ahead(body + b.signs + TILES_AHEAD * b.next_signs, blocks * signs);
        for (int i = 0; i < blocks; i++)
            add_tile(body + b.nibbles + i * nibbles, body + b.signs + i * signs, BK, tables,
                     total[i]);
    }
    tables = tl2_pair_tables(acts, w->cols, b.threes);
    for (int64_t c = b.threes; c < w->cols;
         c += 32, b.pairs += b.next_pairs, tables += 16 * TL2_TABLE)
        for (int i = 0; i < blocks; i++) {
            sums s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
            for (int q = 0; q < 8; q++) {
                const __m256i x = load(body + b.pairs + 256 * i + 32 * q);
                add_pair(&s, tables + 2 * q * TL2_TABLE,
                         _mm256_and_si256(_mm256_srli_epi16(x, 4), low));
                add_pair(&s, tables + (2 * q + 1) * TL2_TABLE, _mm256_and_si256(x, low));
            }
            widen(&s, total[i]);
        }
}

static void one_token(const tp_tensor *w, const void *acts, int64_t row0, int64_t row1,
                      int32_t *out) {
    const int64_t BM = tile_of(w).BM;
    for (int64_t first = row0 / 32 * 32; first < row1;) {
        const int64_t end = tl_block_end(first, BM, row1), left = (end - first + 31) / 32;
        const int blocks = left < BLOCKS ? (int)left : BLOCKS;
        __m256i total[BLOCKS][4];
        int32_t rows[BLOCKS * 32];
        memset(total, 0, sizeof total);
        add_blocks(w, first, blocks, acts, total);
        memcpy(rows, total, sizeof rows);
        for (int64_t r = first > row0 ? first : row0; r < end && r < first + 32 * blocks; r++)
            out[r - row0] = rows[r - first];
        first += 32 * blocks;
    }
}

/* Token by token. Tables are of weights, so that there is no sum_q to take off. */
void matvec_tl2_avx2(const tp_tensor *w, const void *acts, int64_t step, const int32_t *sum_q,
                     int64_t n, int64_t row0, int64_t row1, int32_t *out, int64_t ld) {
    assert(0 <= row0 && row1 <= w->rows);
    (void)sum_q;
    for (int64_t t = 0; t < n; t++)
        one_token(w, (const uint8_t *)acts + t * step, row0, row1, out + t * ld);
}
