/* The orders in which linear kernels read int8 activations. They are made once per token
 * (matvec) or per tile of tokens (matmul), so that no kernel has to move a byte. */
#include <string.h>

#include "internal.h"
#include "kernels/tl.h"

/* ---- lines: kernels/row_geometry.h ---- */

/* Rows are padded, since plain codes and T2 fill their last block up. */
static int64_t line_count(const tp_activation_order *a, int64_t cols) {
    return lines_of_row(a->lines, tp_padded_cols(cols));
}

static size_t lines_bytes(const tp_activation_order *a, int64_t n, int64_t cols) {
    return (size_t)(n * line_count(a, cols) * a->lines.kind * LINE);
}

/* Columns that are neighbours both in the row and in the order. */
typedef struct run {
    int16_t to, from, length;
} run;

typedef struct line_runs {
    int count;
    run runs[LINE * MOST_FIELDS];
} line_runs;
/* The runs of each entry of tp_matvec_order. They are found once, when the library is loaded:
 * finding them takes longer than arranging one row of activations. */
static line_runs runs_of[TP_LAYOUT_COUNT];

static void find_runs(tp_lines l, line_runs *out) {
    run *const runs = out->runs;
    int count = 0;
    for (int f = 0; f < (int)l.kind; f++)
        for (int p = 0; p < lines_code_bytes(l); p++) {
            const int within = (p + l.first) % l.unit_bytes, column = lines_column(l, within, f);
            const int from = (p + l.first) / l.unit_bytes * l.unit_cols + column, to = LINE * f + p;
            run *before = count ? &runs[count - 1] : NULL;
            if (column < 0) continue;
            if (before && before->to + before->length == to &&
                before->from + before->length == from)
                before->length++;
            else runs[count++] = (run){(int16_t)to, (int16_t)from, 1};
        }
    out->count = count;
}

static void lines_fill(const tp_activation_order *a, const int8_t *q, int64_t n, int64_t cols,
                       int64_t piece, void *dst) {
    const tp_lines l = a->lines;
    const int64_t wide = l.units * l.unit_cols, padded = tp_padded_cols(cols);
    int8_t *to = (int8_t *)dst + piece * (int64_t)lines_bytes(a, 1, cols);
    const line_runs *const line = &runs_of[a - tp_matvec_order];
    (void)n;
    memset(to, 0, lines_bytes(a, 1, cols));
    q += piece * padded;
    for (int64_t c = 0; c < padded; c += wide, to += l.kind * LINE)
        for (int i = 0; i < line->count; i++) {
            const run r = line->runs[i];
            if (c + r.from + r.length > padded) { /* the last line has fewer units */
                if (c + r.from < padded)
                    memcpy(to + r.to, q + c + r.from, (size_t)(padded - c - r.from));
            } else if (r.length == 32) memcpy(to + r.to, q + c + r.from, 32);
            else if (r.length == 16) memcpy(to + r.to, q + c + r.from, 16);
            else
                for (int j = 0; j < r.length; j++) to[r.to + j] = q[c + r.from + j];
        }
}

/* ---- T158: lines of 64 bytes. In the last, narrower one too digit f of byte p is at 64 f + p
 * ---- */

static size_t t158_bytes(const tp_activation_order *a, int64_t n, int64_t cols) {
    (void)a;
    return (size_t)(n * ((cols + T158_COLS - 1) / T158_COLS) * T158_COLS);
}

static void t158_fill(const tp_activation_order *a, const int8_t *q, int64_t n, int64_t cols,
                      int64_t piece, void *dst) {
    const int64_t whole = cols / T158_COLS * T158_COLS, width = t158_last_bytes(cols);
    const int8_t *from = q + piece * tp_padded_cols(cols);
    int8_t *to = (int8_t *)dst + piece * (int64_t)t158_bytes(a, 1, cols);
    (void)n;
    memcpy(to, from, (size_t)whole);
    if (whole == cols) return;
    memset(to + whole, 0, T158_COLS);
    for (int64_t c = whole; c < cols; c += width, to += LINE)
        memcpy(to + whole, from + c, (size_t)(cols - c < width ? cols - c : width));
}

/* ---- TL2: kernels/tl.h ---- */

static size_t tl2_bytes(const tp_activation_order *a, int64_t n, int64_t cols) {
    (void)a;
    return (size_t)(n * tl2_tables_bytes(cols));
}

/* Writes the table of three or two activations: what each of 16 nibbles adds. weights: (3, 16),
 * the weights that a nibble stands for; the third row is 0 for pairs. Returns where the next
 * table goes. */
static uint8_t *table_of(const int16_t weights[3][16], int a, int b, int c, uint8_t *to) {
    uint16_t sums[16];
    for (int n = 0; n < 16; n++)
        sums[n] = (uint16_t)(weights[0][n] * (int16_t)a + weights[1][n] * (int16_t)b +
                             weights[2][n] * (int16_t)c);
    for (int n = 0; n < 16; n++) {
        to[n] = (uint8_t)sums[n];
        to[16 + n] = (uint8_t)(sums[n] >> 8);
    }
    return to + TL2_TABLE;
}

static void tl2_fill(const tp_activation_order *a, const int8_t *q, int64_t n, int64_t cols,
                     int64_t piece, void *dst) {
    /* Digits to base 3, less 1, of n + 13 for triples and of n for pairs. A nibble that no
     * packer writes counts as 2, as it does when it is unpacked. */
    static const int16_t triples[3][16] = {{0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2},
                                           {0, 0, 1, 1, 1, -1, -1, -1, 0, 0, 0, 1, 1, 1, 2, 2},
                                           {0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, -1, 0, 1, 2, 2}};
    static const int16_t pairs[3][16] = {{-1, -1, -1, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2},
                                         {-1, 0, 1, -1, 0, 1, -1, 0, 1, 2, 2, 2, 2, 2, 2, 2},
                                         {0}};
    uint8_t *to = (uint8_t *)dst + piece * (int64_t)tl2_bytes(a, 1, cols);
    (void)n;
    q += piece * tp_padded_cols(cols);
    for (int64_t c = 0; c + 3 <= cols; c += 3) to = table_of(triples, q[c], q[c + 1], q[c + 2], to);
    for (int64_t c = cols - TL2_PAIRED; c < cols; c += 2)
        to = table_of(pairs, q[c], q[c + 1], 0, to);
}

/* ---- tiles of tokens, the last cut to a multiple of 4: [padded cols / width][tokens][width]
 * ---- */

static size_t tiles_bytes(const tp_activation_order *a, int64_t n, int64_t cols) {
    (void)a;
    return (size_t)((n + 3) / 4 * 4 * tp_padded_cols(cols));
}

TP_INLINE void fill_tiles(const tp_activation_order *a, const int8_t *q, int64_t n, int64_t cols,
                          int64_t piece, const int width, void *dst) {
    const int64_t first = piece * a->tokens, count = n - first < a->tokens ? n - first : a->tokens,
                  tokens = (count + 3) / 4 * 4;
    const int64_t padded = tp_padded_cols(cols);
    int8_t *to = (int8_t *)dst + first * padded;
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t k = 0; k < padded / width; k++) {
            if (t < count)
                memcpy(to + (k * tokens + t) * width, q + (first + t) * padded + width * k,
                       (size_t)width);
            else memset(to + (k * tokens + t) * width, 0, (size_t)width);
        }
}

static void tiles_fill(const tp_activation_order *a, const int8_t *q, int64_t n, int64_t cols,
                       int64_t piece, void *dst) {
    fill_tiles(a, q, n, cols, piece, 4, dst);
}

static void wide_tiles_fill(const tp_activation_order *a, const int8_t *q, int64_t n, int64_t cols,
                            int64_t piece, void *dst) {
    fill_tiles(a, q, n, cols, piece, 8, dst);
}

/* The matvec kernels of a layout read its order on every instruction set; matmul kernels choose one
 * of the tiles below. */
#define ORDER_NO_ORDER(ID)
#define ORDER_LINES(ID) [TP_LAYOUT_##ID] = {1, lines_bytes, lines_fill, TP_LINES_##ID},
#define ORDER_T158(ID) [TP_LAYOUT_##ID] = {1, t158_bytes, t158_fill, {.kind = LINE_TRITS}},
#define ORDER_TL2(ID) [TP_LAYOUT_##ID] = {1, tl2_bytes, tl2_fill, {0}},
#define TP_LAYOUT(ID, name, kind, rows, cols, bytes, scales, scale, align, order) ORDER_##order(ID)
const tp_activation_order tp_matvec_order[TP_LAYOUT_COUNT] = {
#include "include/layouts.def"
};
#undef TP_LAYOUT

const tp_activation_order tp_tiles4 = {4, tiles_bytes, tiles_fill, {0}},
                          tp_tiles12 = {12, tiles_bytes, tiles_fill, {0}},
                          tp_tiles8_by_8 = {8, tiles_bytes, wide_tiles_fill, {0}};

__attribute__((constructor)) static void find_all_runs(void) {
    for (int i = 0; i < TP_LAYOUT_COUNT; i++)
        if (tp_matvec_order[i].fill == lines_fill) find_runs(tp_matvec_order[i].lines, &runs_of[i]);
}
