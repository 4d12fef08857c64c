#include "../t158.h"

void pack_t158_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    for (int64_t r = 0; r < w->rows; r++, codes += w->cols) {
        const t158_place place = t158_row(w->rows, w->cols, r);
        int64_t c = 0;
        for (; c + T158_COLS <= w->cols; c += T158_COLS) trits_pack(codes + c, T158_LINE, T158_DIGITS, body + t158_line_at(place, c, T158_LINE));
        if (c == w->cols) continue;
        int8_t line[T158_COLS] = {0};
        const int bytes = t158_last_bytes(w->cols);
        memcpy(line, codes + c, (size_t)(w->cols - c));
        trits_pack(line, bytes, T158_DIGITS, body + t158_line_at(place, c, bytes));
    }
}
