/* The product of one token, for every layout and instruction set: a row is walked line by line, which makes the thread's
 * weights one sequential stream. The including file brings the words of its instruction set (words/words_ISA.h); after
 * LINES_AT_ONCE lines lanes are added up, so that none wraps. */
#include "../lines.h"
#include "../stream.h"

/* 64 readable bytes at p, whatever lies behind the tensor's end. */
TP_INLINE const uint8_t *readable(const uint8_t *p, const uint8_t *end, uint8_t *copy /* (64) */) {
    if (end - p >= LINE) return p;
    memset(copy, 0, LINE);
    return memcpy(copy, p, (size_t)(end - p));
}

TP_INLINE void add_line(sums *s, tp_line_kind kind, const uint8_t *p, int bytes, const int8_t *q) {
    if (kind == LINE_CODES) codes(s, p, bytes, q);
    else if (kind == LINE_PLANES) planes(s, p, bytes, q);
    else trits(s, p, bytes, q);
}

/* `rows` rows from p on, line by line: they share what is loaded of the activations. */
TP_INLINE void lines_of_rows(tp_lines l, const uint8_t *p, const uint8_t *end, int64_t row_bytes, int64_t lines, const int8_t *q, const int rows,
                             int32_t less, int32_t *out) {
    const int stride = l.units * l.unit_bytes, bytes = lines_code_bytes(l);
    uint8_t copy[LINE];
    (void)row_bytes;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) out[r] = -less;
    for (int64_t i = 0; i < lines;) {
        sums s[MOST_ROWS_AT_ONCE];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) sums_clear(&s[r]);
        for (const int64_t stop = i + LINES_AT_ONCE < lines ? i + LINES_AT_ONCE : lines; i < stop; i++, p += stride, q += l.kind * LINE) {
            if (l.kind != LINE_CODES)
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) stream_from((uintptr_t)p + (uintptr_t)(rows > 1 ? i * stride * (rows - 1) + r * stride : 0));    /* in the file's order */
#if MOST_ROWS_AT_ONCE > 1
            if (rows > 1) {
                trits_of_rows(s, p, row_bytes, rows, q);
                continue;
            }
#endif
            add_line(s, l.kind, readable(p, end, copy), bytes, q);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) out[r] += sums_total(&s[r], l.kind);
    }
}

TP_INLINE void matvec_lines(tp_lines l, const tp_tensor *w, const int8_t *acts, int32_t less, int64_t row0, int64_t row1, int32_t *out) {
    assert(w->cols % l.unit_cols == 0 && 0 <= row0 && row1 <= w->rows);
    const int64_t row_bytes = lines_row_bytes(l, w->cols), lines = lines_of_row(l, w->cols);
    const uint8_t *const data = (const uint8_t *)w->data + l.header + l.first, *const end = (const uint8_t *)w->data + w->rows * row_bytes;
    int64_t r = row0;
    if (MOST_ROWS_AT_ONCE > 1 && l.kind == LINE_TRITS) {
        const int64_t last = (MOST_ROWS_AT_ONCE - 1) * row_bytes + (lines - 1) * l.units * l.unit_bytes;     /* line of the rows together */
        for (; r + MOST_ROWS_AT_ONCE <= row1 && end - data >= r * row_bytes + last + LINE; r += MOST_ROWS_AT_ONCE)
            lines_of_rows(l, data + r * row_bytes, end, row_bytes, lines, acts, MOST_ROWS_AT_ONCE, less, out + r - row0);
    }
    for (; r < row1; r++) lines_of_rows(l, data + r * row_bytes, end, row_bytes, lines, acts, 1, less, out + r - row0);
}

/* Four rows together: word k of 16 bytes is row k's, so lanes are added up four apart. */
TP_INLINE void matvec_quads(tp_lines l, const tp_tensor *w, const int8_t *q, int32_t less, int64_t row0, int64_t row1, int32_t *out) {
    assert(w->cols % l.unit_cols == 0 && w->rows % 4 == 0 && 0 <= row0 && row1 <= w->rows);
    const int64_t bytes = lines_row_bytes(l, w->cols), lines = lines_of_row(l, w->cols);
    for (int64_t first = row0 / 4 * 4; first < row1; first += 4) {
        const uint8_t *p = (const uint8_t *)w->data + first / 4 * bytes + l.header;
        int32_t totals[4] = {0, 0, 0, 0};
        for (int64_t i = 0; i < lines;) {
            sums s;
            sums_clear(&s);
            for (const int64_t stop = i + LINES_AT_ONCE < lines ? i + LINES_AT_ONCE : lines; i < stop; i++, p += LINE) {
                stream_ahead(p);
                planes(&s, p, LINE, q + i * l.kind * LINE);
            }
            sums_of_quads(&s, totals);
        }
        for (int k = 0; k < 4; k++)
            if (row0 <= first + k && first + k < row1) out[first + k - row0] = totals[k] - less;
    }
}

TP_INLINE void matvec_t158(const tp_tensor *w, const int8_t *acts, int32_t less, int64_t row0, int64_t row1, int32_t *out) {
    assert(0 <= row0 && row1 <= w->rows);
    const uint8_t *const end = (const uint8_t *)w->data + w->rows * t158_row_bytes(w->cols);
    uint8_t copy[LINE];
    for (int64_t r = row0; r < row1; r++) {
        const t158_place place = t158_row(w->rows, w->cols, r);
        const int8_t *q = acts;
        int32_t total = 0;
        for (int64_t c = 0; c < w->cols;) {
            sums s;
            sums_clear(&s);
            for (const int64_t stop = c + LINES_AT_ONCE * T158_COLS; c < w->cols && c < stop; c += T158_COLS, q += T158_COLS) {
                const int bytes = w->cols - c < T158_COLS ? t158_last_bytes(w->cols) : T158_LINE;
                const uint8_t *p = (const uint8_t *)w->data + t158_line_at(place, c, bytes);
                stream_ahead(p);
                if (bytes == T158_LINE) trits(&s, readable(p, end, copy), T158_LINE, q);
                else trits(&s, readable(p, end, copy), bytes, q);
            }
            total += sums_total(&s, LINE_TRITS);
        }
        out[r - row0] = total - less;
    }
}

#define MATVEC_LINES(name, geometry) \
    void name(const tp_tensor *w, const void *acts, int32_t sum_q, int64_t row0, int64_t row1, int32_t *out) { \
        const tp_lines lines = geometry; \
        if (lines.rows) matvec_quads(lines, w, acts, sum_q, row0, row1, out); \
        else matvec_lines(lines, w, acts, sum_q, row0, row1, out); \
    }

#define MATVEC_T158(isa) \
    void matvec_t158_##isa(const tp_tensor *w, const void *acts, int32_t sum_q, int64_t row0, int64_t row1, int32_t *out) { \
        matvec_t158(w, acts, sum_q, row0, row1, out); \
    }
