/* Every layout of tensor data (layouts.def): its size, what makes a tensor of it legal, where its
 * scales stand. */
#include <math.h>
#include <string.h>

#include "internal.h"
#include "kernels/quants.h"
#include "kernels/t158.h"

typedef enum kind { FLOATS, QUANTS, TERNARY, CODES } kind;

typedef enum place {
    NO_SCALES,
    IN_TRAILER,
    IN_HEADER,
    BEFORE_ROWS,
    BEFORE_CODES,
    AFTER_CODES
} place;

enum { HEADER = 32, TRAILER = 32, BLOCK = 128 };

/* The smallest unit is `rows` rows by `cols` columns in `bytes` bytes. half: its scales are f16. */
struct layout {
    const char *name;
    kind kind;
    int rows, cols, bytes;
    place scales;
    int half, align;
};

#define TP_LAYOUT(ID, name, kind, rows, cols, bytes, scales, scale, align, order) \
    [TP_LAYOUT_## \
        ID] = {#name, kind, rows, cols, bytes, scales, TP_LAYOUT_##scale == TP_LAYOUT_F16, align},
static const struct layout layouts[TP_LAYOUT_COUNT] = {
#include "include/layouts.def"
};
#undef TP_LAYOUT

static int known(int layout) { return layout >= 0 && layout < TP_LAYOUT_COUNT; }

const char *tp_layout_name(int layout) { return known(layout) ? layouts[layout].name : NULL; }

int tp_is_ternary(int layout) { return known(layout) && layouts[layout].kind == TERNARY; }

int tp_takes_acts16(int layout) { return known(layout) && layouts[layout].kind == QUANTS; }

int64_t tp_padded_cols(int64_t cols) { return (cols + BLOCK - 1) / BLOCK * BLOCK; }

/* ---- sizes ---- */

static int scale_bytes(const struct layout *l) { return l->half ? 2 : 4; }

/* Bytes of the rows that stand together. */
static int64_t run_bytes(int layout, int64_t cols) {
    const struct layout *l = &layouts[layout];
    if (layout == TP_LAYOUT_T2) return tp_padded_cols(cols) / 4;
    if (layout == TP_LAYOUT_T158) return t158_row_bytes(cols);
    return cols / l->cols * l->bytes + (l->scales == BEFORE_ROWS ? l->rows * scale_bytes(l) : 0);
}

/* Bytes before the body of T2 and T158 with so many scales: a whole number of units. */
static uint64_t header_bytes(int layout, uint64_t scales) {
    const uint64_t unit = layout == TP_LAYOUT_T158 ? 64 : 32;
    return layouts[layout].scales == IN_HEADER ? (HEADER + 4 * scales + unit - 1) / unit * unit : 0;
}

uint64_t tp_body_nbytes(int layout, int64_t rows, int64_t cols) {
    if (!known(layout) || rows < 1 || cols < 1 || rows > INT32_MAX || cols > TP_MAX_COLS) return 0;
    if (rows % layouts[layout].rows || cols % layouts[layout].cols ||
        (layout == TP_LAYOUT_TL2 && cols < 256))
        return 0;
    if (layout == TP_LAYOUT_TL2)
        return (uint64_t)((cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 2 * 4 / 8 + 31) / 32 * 32;
    return (uint64_t)(rows / layouts[layout].rows * run_bytes(layout, cols));
}

static uint64_t nbytes_of(int layout, int64_t rows, int64_t cols, uint64_t scales) {
    const uint64_t body = tp_body_nbytes(layout, rows, cols);
    return body ? header_bytes(layout, scales) + body +
                      (layouts[layout].scales == IN_TRAILER ? TRAILER : 0)
                : 0;
}

uint64_t tp_tensor_nbytes(int layout, int64_t rows, int64_t cols) {
    return nbytes_of(layout, rows, cols, 1);
}

/* ---- what is legal ---- */

/* Returns 1 if the header of T2 or T158 fits the shape. */
static int read_header(const tp_tensor *t, int64_t *row_blocks, int64_t *col_blocks) {
    uint32_t words[3];
    if (t->nbytes < HEADER) return 0;
    memcpy(words, t->data, sizeof words);
    *row_blocks = words[1];
    *col_blocks = words[2];
    return memcmp(words, t->layout == TP_LAYOUT_T2 ? "T2\1" : "T158", 4) == 0 && words[1] &&
           words[2] && t->rows % *row_blocks == 0 && t->cols % *col_blocks == 0;
}

int tp_tile_fits(const tp_tensor *t) {
    const int64_t BM = t->tile[0], BK = t->tile[1], bm = t->tile[2];
    if (t->layout != TP_LAYOUT_TL1 && t->layout != TP_LAYOUT_TL2) return 1;
    if (BM < 1 || BK < 1 || (bm != 32 && bm != 64) || t->rows % BM || BM % bm) return 0;
    if (t->layout == TP_LAYOUT_TL1) return t->cols % BK == 0 && BK % (256 / bm) == 0;
    return bm == 32 && BK <= t->cols && BK % 24 == 0 && t->cols % BK % 32 == 0 &&
           t->cols % BK <= 256;
}

int tp_tensor_check(const tp_tensor *t) {
    int64_t row_blocks = 1, col_blocks = 1;
    if (!t || !t->data || t->rotated < 0 || t->rotated > 1) return TP_ERR_ARGUMENT;
    if (!known(t->layout)) return TP_ERR_LAYOUT;
    if (!tp_tensor_nbytes(t->layout, t->rows, t->cols) || !tp_tile_fits(t)) return TP_ERR_SHAPE;
    if (layouts[t->layout].scales == IN_HEADER && !read_header(t, &row_blocks, &col_blocks))
        return TP_ERR_BYTES;
    if (nbytes_of(t->layout, t->rows, t->cols, (uint64_t)(row_blocks * col_blocks)) != t->nbytes)
        return TP_ERR_BYTES;
    if (tp_is_ternary(t->layout) ? !(isfinite(t->scale) && t->scale >= 0) : t->scale != 1)
        return TP_ERR_ARGUMENT;
    return (uintptr_t)t->data % (uintptr_t)layouts[t->layout].align ? TP_ERR_ARGUMENT : TP_OK;
}

/* ---- scales ---- */

tp_ternary tp_ternary_of(const tp_tensor *t) {
    const struct layout *l = &layouts[t->layout];
    const uint8_t *data = t->data;
    const uint64_t body = tp_body_nbytes(t->layout, t->rows, t->cols);
    tp_ternary parts = {.body = *t,
                        .scales = data,
                        .rows_per_scale = 1,
                        .run = 1,
                        .col_blocks = 1,
                        .half = l->half};
    parts.body.nbytes = body;
    switch (l->scales) {
        case IN_TRAILER:
            parts.scales = data + body;
            parts.rows_per_scale = t->rows;
            break;
        case IN_HEADER: {
            int64_t row_blocks = 1;
            read_header(t, &row_blocks, &parts.col_blocks);
            parts.scales = data + HEADER;
            parts.body.data =
                data + header_bytes(t->layout, (uint64_t)(row_blocks * parts.col_blocks));
            parts.rows_per_scale = t->rows / row_blocks;
            parts.run_bytes = 4 * parts.col_blocks;
            parts.block_bytes = 4;
            parts.grouped = 1;
            break;
        }
        case BEFORE_ROWS:
            parts.run = l->rows;
            parts.run_bytes = run_bytes(t->layout, t->cols);
            break;
        default:
            parts.scales = data + (l->scales == AFTER_CODES ? l->bytes - scale_bytes(l) : 0);
            parts.run_bytes = run_bytes(t->layout, t->cols);
            parts.col_blocks = t->cols / l->cols;
            parts.block_bytes = l->bytes;
    }
    return parts;
}

void tp_scales_of_row(const tp_ternary *t, int64_t row, float *out) {
    const uint8_t *at = tp_scales_at(t, row);
    for (int64_t b = 0; b < t->col_blocks; b++) out[b] = tp_scale_value(t, at + b * t->block_bytes);
}
