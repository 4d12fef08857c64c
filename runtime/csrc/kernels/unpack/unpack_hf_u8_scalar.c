#include "../planes.h"

/* Bit planes as wide as a quarter of the matrix: a row is one of them in the bytes of its quarter's row. */
void unpack_hf_u8_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    const int64_t quarter = w->rows / 4;
    for (int64_t r = row0; r < row1; r++) {
        const uint8_t *restrict from = (const uint8_t *)w->data + r % quarter * w->cols;
        uint8_t *restrict to = out + (r - row0) * ld;
        const int shift = (int)(2 * (r / quarter));
        int64_t c = 0;
        for (; c + 16 <= w->cols; c += 16) plane16(from + c, shift, to + c);
        for (; c < w->cols; c++) to[c] = from[c] >> shift & 3;
    }
}
