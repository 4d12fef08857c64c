/* Every layout of tensor data, one table entry each: its size, what makes a tensor of it legal, where its scales stand. */
#include <math.h>

#include "internal.h"
#include "kernels/quants.h"
#include "kernels/t158.h"

typedef enum place { NO_SCALES, IN_TRAILER, IN_HEADER, BEFORE_ROWS, BEFORE_CODES, BEHIND_CODES } place;

enum { HEADER = 32, TRAILER = 32, BLOCK = 128 };

/* The smallest unit is `rows` rows by `cols` columns in `bytes` bytes, a block's scale included. */
static const struct layout { const char *name; int rows, cols, bytes; place scales; int half, align; } layouts[TP_LAYOUT_COUNT] = {
    [TP_LAYOUT_F32] = {"f32", 1, 1, 4, NO_SCALES, 0, 4},
    [TP_LAYOUT_F16] = {"f16", 1, 1, 2, NO_SCALES, 0, 2},
    [TP_LAYOUT_BF16] = {"bf16", 1, 1, 2, NO_SCALES, 0, 2},
    [TP_LAYOUT_Q8_0] = {"q8_0", 1, 32, Q8_0_BYTES, NO_SCALES, 0, 1},
    [TP_LAYOUT_Q6_K] = {"q6_k", 1, 256, Q6_K_BYTES, NO_SCALES, 0, 1},
    [TP_LAYOUT_Q4_K] = {"q4_k", 1, 256, Q4_K_BYTES, NO_SCALES, 0, 1},
    [TP_LAYOUT_I2_S] = {"i2_s", 1, 128, 32, IN_TRAILER, 0, 1},
    [TP_LAYOUT_T2] = {"t2", 1, 1, 0, IN_HEADER, 0, 1},          /* rows are padded: run_bytes */
    [TP_LAYOUT_T158] = {"t158", 1, 1, 0, IN_HEADER, 0, 1},      /* the same */
    [TP_LAYOUT_TL1] = {"tl1", 32, 8, 64, IN_TRAILER, 0, 1},
    [TP_LAYOUT_TL2] = {"tl2", 32, 8, 0, IN_TRAILER, 0, 1},      /* padded as a whole: tp_body_nbytes */
    [TP_LAYOUT_TQ1_0] = {"tq1_0", 1, 256, 54, BEHIND_CODES, 1, 1},
    [TP_LAYOUT_TQ2_0] = {"tq2_0", 1, 256, 66, BEHIND_CODES, 1, 1},
    [TP_LAYOUT_Q2_0] = {"q2_0", 1, 64, 18, BEFORE_CODES, 1, 1},
    [TP_LAYOUT_PTQ1_0] = {"ptq1_0", 1, 128, 28, BEHIND_CODES, 1, 1},
    [TP_LAYOUT_PQ2_0] = {"pq2_0", 1, 128, 34, BEFORE_CODES, 1, 1},
    [TP_LAYOUT_IQ1_BN] = {"iq1_bn", 1, 64, 13, BEFORE_ROWS, 1, 1},
    [TP_LAYOUT_IQ2_BN] = {"iq2_bn", 1, 64, 16, BEFORE_ROWS, 0, 1},
    [TP_LAYOUT_IQ2_BN_R4] = {"iq2_bn_r4", 4, 64, 64, BEFORE_ROWS, 0, 1},
    [TP_LAYOUT_HF_U8] = {"hf_u8", 4, 1, 1, NO_SCALES, 0, 1},
    [TP_LAYOUT_MLX2] = {"mlx2", 1, 32, 8, NO_SCALES, 0, 1},
    [TP_LAYOUT_U8] = {"u8", 1, 1, 1, NO_SCALES, 0, 1},
};

static int known(int layout) { return layout >= 0 && layout < TP_LAYOUT_COUNT; }

const char *tp_layout_name(int layout) { return known(layout) ? layouts[layout].name : NULL; }

int tp_layout_from_name(const char *name) {
    for (int i = 0; name && i < TP_LAYOUT_COUNT; i++)
        if (strcmp(name, layouts[i].name) == 0) return i;
    return -1;
}

int tp_is_ternary(int layout) { return known(layout) && layouts[layout].scales != NO_SCALES; }

int tp_takes_acts16(int layout) { return layout == TP_LAYOUT_Q8_0 || layout == TP_LAYOUT_Q6_K || layout == TP_LAYOUT_Q4_K; }

int64_t tp_padded_cols(int64_t cols) { return (cols + BLOCK - 1) / BLOCK * BLOCK; }

/* ---- sizes ---- */

static int scale_bytes(const struct layout *l) { return l->half ? 2 : 4; }

/* Of the rows that stand together. */
static int64_t run_bytes(int layout, int64_t cols) {
    const struct layout *l = &layouts[layout];
    if (layout == TP_LAYOUT_T2) return tp_padded_cols(cols) / 4;
    if (layout == TP_LAYOUT_T158) return t158_row_bytes(cols);
    return cols / l->cols * l->bytes + (l->scales == BEFORE_ROWS ? l->rows * scale_bytes(l) : 0);
}

/* What stands before the body of T2 and T158 with so many scales: a whole number of units. */
static uint64_t header_bytes(int layout, uint64_t scales) {
    const uint64_t unit = layout == TP_LAYOUT_T158 ? 64 : 32;
    return layouts[layout].scales == IN_HEADER ? (HEADER + 4 * scales + unit - 1) / unit * unit : 0;
}

uint64_t tp_body_nbytes(int layout, int64_t rows, int64_t cols) {
    if (!known(layout) || rows < 1 || cols < 1 || rows > INT32_MAX || cols > TP_MAX_COLS) return 0;
    if (rows % layouts[layout].rows || cols % layouts[layout].cols || (layout == TP_LAYOUT_TL2 && cols < 256)) return 0;
    if (layout == TP_LAYOUT_TL2) return (uint64_t)((cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 2 * 4 / 8 + 31) / 32 * 32;
    return (uint64_t)(rows / layouts[layout].rows * run_bytes(layout, cols));
}

static uint64_t nbytes_of(int layout, int64_t rows, int64_t cols, uint64_t scales) {
    const uint64_t body = tp_body_nbytes(layout, rows, cols);
    return body ? header_bytes(layout, scales) + body + (layouts[layout].scales == IN_TRAILER ? TRAILER : 0) : 0;
}

uint64_t tp_tensor_nbytes(int layout, int64_t rows, int64_t cols) { return nbytes_of(layout, rows, cols, 1); }

/* ---- what is legal ---- */

/* 1 if the header of T2 or T158 fits the shape. */
static int read_header(const tp_tensor *t, int64_t *row_blocks, int64_t *col_blocks) {
    uint32_t words[3];
    if (t->nbytes < HEADER) return 0;
    memcpy(words, t->data, sizeof words);
    *row_blocks = words[1];
    *col_blocks = words[2];
    return memcmp(words, t->layout == TP_LAYOUT_T2 ? "T2\1" : "T158", 4) == 0 && words[1] && words[2] && t->rows % *row_blocks == 0 &&
           t->cols % *col_blocks == 0;
}

int tp_tile_fits(const tp_tensor *t) {
    const int64_t BM = t->tile[0], BK = t->tile[1], bm = t->tile[2];
    if (t->layout != TP_LAYOUT_TL1 && t->layout != TP_LAYOUT_TL2) return 1;
    if (BM < 1 || BK < 1 || (bm != 32 && bm != 64) || t->rows % BM || BM % bm) return 0;
    if (t->layout == TP_LAYOUT_TL1) return t->cols % BK == 0 && BK % (256 / bm) == 0;
    return bm == 32 && BK <= t->cols && BK % 24 == 0 && t->cols % BK % 32 == 0 && t->cols % BK <= 256;
}

int tp_tensor_check(const tp_tensor *t) {
    int64_t row_blocks = 1, col_blocks = 1;
    if (!t || !t->data || t->reserved) return TP_ERR_ARGUMENT;
    if (!known(t->layout)) return TP_ERR_LAYOUT;
    if (!tp_tensor_nbytes(t->layout, t->rows, t->cols) || !tp_tile_fits(t)) return TP_ERR_SHAPE;
    if (layouts[t->layout].scales == IN_HEADER && !read_header(t, &row_blocks, &col_blocks)) return TP_ERR_BYTES;
    if (nbytes_of(t->layout, t->rows, t->cols, (uint64_t)(row_blocks * col_blocks)) != t->nbytes) return TP_ERR_BYTES;
    if (tp_is_ternary(t->layout) ? !(isfinite(t->scale) && t->scale >= 0) : t->scale != 1) return TP_ERR_ARGUMENT;
    return (uintptr_t)t->data % (uintptr_t)layouts[t->layout].align ? TP_ERR_ARGUMENT : TP_OK;
}

/* ---- scales ---- */

tp_ternary tp_ternary_of(const tp_tensor *t) {
    const struct layout *l = &layouts[t->layout];
    const uint8_t *data = t->data;
    const uint64_t body = tp_body_nbytes(t->layout, t->rows, t->cols);
    tp_ternary parts = {.body = *t, .scales = data, .rows_per_scale = 1, .run = 1, .col_blocks = 1, .half = l->half};
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
            parts.body.data = data + header_bytes(t->layout, (uint64_t)(row_blocks * parts.col_blocks));
            parts.rows_per_scale = t->rows / row_blocks;
            parts.run_bytes = 4 * parts.col_blocks;
            parts.block_bytes = 4;
            break;
        }
        case BEFORE_ROWS:
            parts.run = l->rows;
            parts.run_bytes = run_bytes(t->layout, t->cols);
            break;
        default:
            parts.scales = data + (l->scales == BEHIND_CODES ? l->bytes - scale_bytes(l) : 0);
            parts.run_bytes = run_bytes(t->layout, t->cols);
            parts.col_blocks = t->cols / l->cols;
            parts.block_bytes = l->bytes;
    }
    return parts;
}

/* Of the first block of columns. */
const uint8_t *tp_scales_at(const tp_ternary *t, int64_t row) {
    const int64_t i = row / t->rows_per_scale;
    return t->scales + i / t->run * t->run_bytes + i % t->run * (t->half ? 2 : 4);
}

static float load(const tp_ternary *t, const uint8_t *at) { return (t->half ? tp_f16_float(tp_load_u16(at)) : tp_load_f32(at)) * t->body.scale; }

void tp_scales_of_row(const tp_ternary *t, int64_t row, float *out) {
    const uint8_t *at = tp_scales_at(t, row);
    for (int64_t b = 0; b < t->col_blocks; b++) out[b] = load(t, at + b * t->block_bytes);
}

/* The first scale of a row that is not 0. */
static float row_scale_at(const tp_ternary *t, const uint8_t *at) {
    float scale = load(t, at);
    for (int64_t b = 1; b < t->col_blocks && scale == 0; b++) scale = load(t, at + b * t->block_bytes);
    return scale;
}
static float row_scale(const tp_ternary *t, int64_t row) { return row_scale_at(t, tp_scales_at(t, row)); }

/* Whether a row has codes other than zero under scales of 0. */
static int nonzero_under_zero(const tp_ternary *t, int64_t row) {
    const int64_t cols = t->body.cols, width = cols / t->col_blocks;
    uint8_t *codes = tp_alloc(1, (size_t)cols);
    int found = !codes;         /* without memory to look: as if */
    if (codes) tp_kernel_best(TP_OP_UNPACK, t->body.layout, TP_ISA_SCALAR)->unpack(&t->body, row, row + 1, codes, cols);
    for (int64_t b = 0; codes && b < t->col_blocks; b++) {
        if (load(t, tp_scales_at(t, row) + b * t->block_bytes) != 0) continue;
        for (int64_t c = b * width; c < (b + 1) * width; c++) found |= codes[c] != 1;
    }
    tp_free(codes);
    return found;
}

int tp_one_scale_per_row(const tp_ternary *t, int *stray) {
    *stray = 0;
    if (t->col_blocks == 1) return 1;
    if (layouts[t->body.layout].scales == IN_HEADER) return 0;      /* groups: packers merge equal ones, so these differ */
    for (int64_t r = 0; r < t->body.rows; r++) {
        const uint8_t *at = tp_scales_at(t, r);
        const float scale = row_scale(t, r);
        int zeros = 0;
        for (int64_t b = 0; b < t->col_blocks; b++) {
            const float here = load(t, at + b * t->block_bytes);
            if (here == 0) zeros = 1;
            else if (here != scale) return 0;
        }
        if (!*stray && zeros && scale != 0) *stray = nonzero_under_zero(t, r);
    }
    return 1;
}

void tp_row_scales(const tp_ternary *t, int64_t row0, int64_t row1, float *out) {
    if (t->rows_per_scale == 1 && t->run == 1) {      /* a division a row is felt where every row has a scale */
        const uint8_t *at = t->scales + row0 * t->run_bytes;
        for (int64_t r = row0; r < row1; r++, at += t->run_bytes) out[r - row0] = row_scale_at(t, at);
        return;
    }
    for (int64_t r = row0; r < row1;) {
        const float scale = row_scale(t, r);
        for (const int64_t last = (r / t->rows_per_scale + 1) * t->rows_per_scale; r < row1 && r < last; r++) out[r - row0] = scale;
    }
}

void tp_clear_unscaled(const tp_ternary *t, int64_t row, uint8_t *codes) {
    const int64_t width = t->body.cols / t->col_blocks;
    const uint8_t *at = tp_scales_at(t, row);
    for (int64_t b = 0; b < t->col_blocks; b++)
        if (load(t, at + b * t->block_bytes) == 0) memset(codes + b * width, 1, (size_t)width);
}
