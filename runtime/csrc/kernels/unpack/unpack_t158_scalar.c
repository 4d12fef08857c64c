#include "../t158.h"

TP_INLINE void unpack_line(const uint8_t *from, int bytes, uint8_t *out, int64_t cols) {
    uint8_t line[T158_COLS];
    trits_unpack(from, bytes, T158_DIGITS, cols == T158_DIGITS * bytes ? out : line);
    if (cols < T158_DIGITS * bytes) memcpy(out, line, (size_t)cols);
}

void unpack_t158_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const t158_place place = t158_row(w->rows, w->cols, r);
        const uint8_t *body = w->data;
        int64_t c = 0;
        for (; c + T158_COLS <= w->cols; c += T158_COLS) unpack_line(body + t158_line_at(place, c, T158_LINE), T158_LINE, out + c, T158_COLS);
        if (c == w->cols) continue;
        const int bytes = t158_last_bytes(w->cols);
        unpack_line(body + t158_line_at(place, c, bytes), bytes, out + c, w->cols - c);
    }
}
