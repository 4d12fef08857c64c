#include "../tl.h"

/* Three codes of a triple, by sign and nibble |9 a + 3 b + c - 13|; nibbles above 13 give 3, 3, 3. */
#define VALUE(v) (uint32_t)((v) / 9 | (v) / 3 % 3 << 8 | (v) % 3 << 16)
#define PLUS(n) ((n) > 13 ? 0x030303u : VALUE((n) + 13))
#define MINUS(n) ((n) > 13 ? 0x030303u : VALUE((n) > 13 ? 0 : 13 - (n)))
#define EACH_NIBBLE(M) M(0), M(1), M(2), M(3), M(4), M(5), M(6), M(7), M(8), M(9), M(10), M(11), M(12), M(13), M(14), M(15)
static const uint32_t triples[32] = {EACH_NIBBLE(PLUS), EACH_NIBBLE(MINUS)};

void unpack_tl2_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    const tp_tile t = tile_of(w);
    const uint8_t *body = w->data;
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const tl2_parts p = tl2_parts_of(w, r);
        for (int64_t c = 0, tile = 0; c < p.threes; tile++)
            for (int64_t end = c + t.BK, in = 0; c < end; c += 24, in++) {
                const uint8_t *nibbles = body + p.row_nibble + tile * p.tile_nibble + in * 128;
                unsigned signs = (unsigned)tp_load_u16(body + p.row_sign + tile * p.tile_sign + in * 32) >> p.shift;
                for (int six = 0; six < 4; six++, signs <<= 4) {    /* its two signs stand in bits 14 and 12 */
                    const unsigned byte = nibbles[32 * six], first = byte >> 4 | (signs >> 10 & 16), second = (byte & 15) | (signs >> 8 & 16);
                    const uint64_t codes = triples[first] | (uint64_t)triples[second] << 24;
                    memcpy(out + c + 6 * six, &codes, 6);
                }
            }
        for (int64_t c = p.threes, tile = 0; c < w->cols; tile++)
            for (int q = 0; q < 8; q++, c += 4) memcpy(out + c, &tl_quads[body[p.row_pair + tile * p.tile_pair + 32 * q]], 4);
    }
}
