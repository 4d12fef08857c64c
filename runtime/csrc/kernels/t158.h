/* T158: a row is cut into lines of 64 bytes (320 columns), the last one to units of 16 bytes (80
 * columns); byte j of a line of w bytes holds the trits of columns j, w + j, ... 4 w + j. Rows
 * stand in groups of 8: the first line of each, then the second of each, and so on. */
#ifndef TRITPACK_T158_H
#define TRITPACK_T158_H

#include "trits.h"

enum {
    T158_ROWS = 8,
    T158_LINE = 64,
    T158_UNIT = 16,
    T158_DIGITS = 5,
    T158_COLS = T158_DIGITS * T158_LINE
};

/* Bytes of the last line, if it is not whole; else 0. */
static inline int t158_last_bytes(int64_t cols) {
    const int unit = T158_DIGITS * T158_UNIT;
    return ((int)(cols % T158_COLS) + unit - 1) / unit * T158_UNIT;
}
static inline int64_t t158_row_bytes(int64_t cols) {
    return cols / T158_COLS * T158_LINE + t158_last_bytes(cols);
}

/* A row's place: where the bytes of its group start, how many rows that has, which of them it
 * is. */
typedef struct t158_place {
    int64_t start, group, in_group;
} t158_place;
static inline t158_place t158_row(int64_t rows, int64_t cols, int64_t row) {
    const int64_t first = row / T158_ROWS * T158_ROWS, left = rows - first;
    return (t158_place){first * t158_row_bytes(cols), left < T158_ROWS ? left : T158_ROWS,
                        row - first};
}

/* Where its line of `bytes` bytes stands that begins at column c. */
static inline int64_t t158_line_at(t158_place p, int64_t c, int bytes) {
    return p.start + c / T158_COLS * T158_LINE * p.group + p.in_group * bytes;
}

TP_INLINE void t158_unpack_line(const uint8_t *from, int bytes, uint8_t *out, int64_t cols) {
    uint8_t line[T158_COLS];
    trits_unpack(from, bytes, T158_DIGITS, cols == T158_DIGITS * bytes ? out : line);
    if (cols < T158_DIGITS * bytes) memcpy(out, line, (size_t)cols);
}

TP_INLINE void t158_unpack_rows(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out,
                                int64_t ld) {
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const t158_place place = t158_row(w->rows, w->cols, r);
        const uint8_t *body = w->data;
        int64_t c = 0;
        for (; c + T158_COLS <= w->cols; c += T158_COLS)
            t158_unpack_line(body + t158_line_at(place, c, T158_LINE), T158_LINE, out + c,
                             T158_COLS);
        if (c == w->cols) continue;
        const int bytes = t158_last_bytes(w->cols);
        t158_unpack_line(body + t158_line_at(place, c, bytes), bytes, out + c, w->cols - c);
    }
}

#endif
