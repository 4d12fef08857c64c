#include "../tl.h"

static int32_t entry(const uint8_t *table, int n) {
    return (int16_t)(table[n] | table[16 + n] << 8);
}

static void one_token(const tp_tensor *w, const void *acts, int64_t row0, int64_t row1,
                      int32_t *out) {
    const int64_t BK = tile_of(w).BK;
    for (int64_t r = row0; r < row1; r++) {
        tl2_block b = tl2_block_of(w, r);
        const uint8_t *tables = acts;
        int32_t sum = 0;
        for (int64_t c = 0; c < b.threes;
             c += BK, b.nibbles += b.next_nibbles, b.signs += b.next_signs)
            for (int64_t k = 0; k < BK / 3; k++, tables += TL2_TABLE) {
                const int byte =
                              ((const uint8_t *)w->data)[b.nibbles + k / 2 * 32 + tl2_position(r)],
                          nibble = k % 2 ? byte & 15 : byte >> 4;
                const int word =
                    tp_load_u16((const uint8_t *)w->data + b.signs + k / 8 * 32 + tl2_word(r));
                const int32_t value = entry(tables, nibble);
                sum += word >> (14 - 2 * (k % 8) + tl2_shift(r)) & 1 ? -value : value;
            }
        tables = tl2_pair_tables(acts, w->cols, b.threes);
        for (int64_t c = b.threes; c < w->cols; c += 32, b.pairs += b.next_pairs)
            for (int q = 0; q < 8; q++, tables += 2 * TL2_TABLE) {
                const int byte = ((const uint8_t *)w->data)[b.pairs + 32 * q + tl2_position(r)];
                sum += entry(tables, byte >> 4) + entry(tables + TL2_TABLE, byte & 15);
            }
        out[r - row0] = sum;
    }
}

/* Token by token. Tables are of weights, so that there is no sum_q to take off. */
void matvec_tl2_scalar(const tp_tensor *w, const void *acts, int64_t step, const int32_t *sum_q,
                       int64_t n, int64_t row0, int64_t row1, int32_t *out, int64_t ld) {
    assert(0 <= row0 && row1 <= w->rows);
    (void)sum_q;
    for (int64_t t = 0; t < n; t++)
        one_token(w, (const uint8_t *)acts + t * step, row0, row1, out + t * ld);
}
