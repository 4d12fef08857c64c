/* The product of one token, for every layout and instruction set: a row is walked line by line, which makes the thread's
 * weights one sequential stream. The including file brings the words of its instruction set (words/words_ISA.h). */
#include "../lines.h"
#include "../stream.h"

enum { LINES_AT_ONCE = 1024 };      /* before lanes are added up: no word wraps (words/usdot.h) */

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

TP_INLINE void matvec_lines(tp_lines l, const tp_tensor *w, const int8_t *acts, int32_t less, int64_t row0, int64_t row1, int32_t *out) {
    assert(w->cols % l.unit_cols == 0 && 0 <= row0 && row1 <= w->rows);
    const int64_t row_bytes = lines_row_bytes(l, w->cols), lines = lines_of_row(l, w->cols);
    const uint8_t *const end = (const uint8_t *)w->data + w->rows * row_bytes;
    uint8_t copy[LINE];
    for (int64_t r = row0; r < row1; r++) {
        const uint8_t *p = (const uint8_t *)w->data + r * row_bytes + l.header + l.first;
        const int8_t *q = acts;
        int32_t total = 0;
        for (int64_t i = 0; i < lines;) {
            sums s;
            sums_clear(&s);
            for (const int64_t stop = i + LINES_AT_ONCE < lines ? i + LINES_AT_ONCE : lines; i < stop; i++) {
                if (l.kind != LINE_CODES) stream_ahead(p);
                add_line(&s, l.kind, readable(p, end, copy), lines_code_bytes(l), q);
                p += l.units * l.unit_bytes;
                q += l.kind * LINE;
            }
            total += sums_total(&s, l.kind);
        }
        out[r - row0] = total - less;
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
    void name(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out, int64_t ld, \
              void *scratch) { \
        const tp_lines lines = geometry; \
        assert(n == 1); \
        (void)scratch, (void)ld, (void)n; \
        matvec_lines(lines, w, acts, sum_q[0], row0, row1, out); \
    }
