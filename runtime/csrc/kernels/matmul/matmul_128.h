/* The product of many tokens by 128-bit words, for SSSE3, ARM and WebAssembly: 16 rows at a time become a panel, 8 rows by a tile of
 * tokens of it stay in registers. The including file brings WORD, word_zero, word_load, word_store, word_dot, and word_four (four
 * bytes in every lane) or word_times (by those of token t of q); or WIDTH, TILE and a tile function of its own.
 *
 * panel: [2][cols / WIDTH][8 rows][WIDTH columns] u8 codes 0 .. 3. acts: tiles of TILE tokens, the last cut to a multiple of 4,
 * each [cols / WIDTH][tokens][WIDTH columns]. */
#include "../lines.h"
#include "../stream.h"

enum { PANEL_ROWS = 16, HALF_ROWS = 8 };

#ifndef WIDTH
#define WIDTH 4
#define TILE 4

#define EACH4(X) X(0) X(1) X(2) X(3)
#define ACC_ZERO(t) WORD lo##t = word_zero(), hi##t = lo##t;
#ifndef word_times
#define word_times(acc, codes, q, t) word_dot(acc, codes, word_four(q + 4 * t))
#endif
#define ACC_STEP(t) \
    lo##t = word_times(lo##t, w0, q, t); \
    hi##t = word_times(hi##t, w1, q, t);
#define ACC_OUT(t) \
    word_store(to + 8 * t, lo##t); \
    word_store(to + 8 * t + 4, hi##t);

static void tile(const uint8_t *panel, const int8_t *q, int64_t cols, int64_t tokens, int32_t *to /* (TILE tokens, 8 rows) */) {
    (void)tokens;
    EACH4(ACC_ZERO)
    for (int64_t c = 0; c < cols; c += WIDTH, panel += 32, q += 16) {
        const WORD w0 = word_load(panel), w1 = word_load(panel + 16);
        EACH4(ACC_STEP)
    }
    EACH4(ACC_OUT)
}
#endif

/* Four neighbours of a row's codes go to their place in the panel. */
TP_INLINE void to_panel(uint8_t *panel, int64_t cols, int i, int64_t column, uint32_t four) {
    memcpy(panel + (i / HALF_ROWS * cols + column / WIDTH * WIDTH) * HALF_ROWS + i % HALF_ROWS * WIDTH + column % WIDTH, &four, 4);
}

typedef void panel_row_fn(const tp_tensor *w, int64_t row, uint8_t *panel, int i);

TP_INLINE void matmul_panels(const tp_tensor *w, const int8_t *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1,
                             int32_t *out, int64_t ld, uint8_t *panel, tp_ahead next, panel_row_fn *panel_row) {
    assert(w->cols % WIDTH == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t r = row0; r < row1; r += PANEL_ROWS) {
        const int rows = row1 - r < PANEL_ROWS ? (int)(row1 - r) : PANEL_ROWS;
        for (int i = 0; i < PANEL_ROWS; i++) panel_row(w, r + (i < rows ? i : 0), panel, i);
        for (int64_t t = 0; t < n; t += TILE) {
            ask_for(next, (r - row0) * n + t * rows, TILE * rows, (row1 - row0) * n);
            for (int first = 0; first < rows; first += HALF_ROWS) {
                int32_t sums[TILE * HALF_ROWS];
                tile(panel + first * w->cols, acts + t * w->cols, w->cols, n - t, sums);
                for (int64_t u = 0; u < TILE && t + u < n; u++)
                    for (int i = 0; i < HALF_ROWS && first + i < rows; i++)
                        out[(t + u) * ld + r - row0 + first + i] = sums[u * HALF_ROWS + i] - sum_q[t + u];
            }
        }
    }
}

static inline void panel_row_u8(const tp_tensor *w, int64_t row, uint8_t *panel, int i) {
    const uint8_t *from = (const uint8_t *)w->data + row * w->cols;
    for (int64_t c = 0; c < w->cols; c += 4) {
        uint32_t four;
        memcpy(&four, from + c, 4);
        to_panel(panel, w->cols, i, c, four);
    }
}

static inline void panel_row_i2_s(const tp_tensor *w, int64_t row, uint8_t *panel, int i) {
    const uint8_t *from = (const uint8_t *)w->data + row * (w->cols / 4);
    for (int64_t c = 0; c < w->cols; c += 128, from += 32)
        for (int p = 0; p < 32; p += 4) {
            uint32_t four;
            memcpy(&four, from + p, 4);
            for (int f = 0; f < 4; f++) to_panel(panel, w->cols, i, c + 32 * f + p, four >> (6 - 2 * f) & 0x03030303u);
        }
}

#define MATMUL_128(l, isa) \
    void matmul_##l##_##isa(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out, \
                            int64_t ld, void *scratch, tp_ahead next) { \
        matmul_panels(w, acts, sum_q, n, row0, row1, out, ld, scratch, next, panel_row_##l); \
    }
