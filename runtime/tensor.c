/* Tensors as bytes: layouts, sizes, single rows. And the errors' sentences, and memory. */
#include <stdlib.h>
#include <string.h>

#include "fpenv.h"
#include "internal.h"
#include "kernels/quants.h"

int tp_abi_version(void) { return TP_ABI_VERSION; }

const char *tp_status_text(int status) {
    switch ((tp_status)status) {
        case TP_OK: return "no error";
        case TP_ERR_ARGUMENT: return "an argument is missing, out of range or not aligned";
        case TP_ERR_SHAPE: return "a tensor's shape does not fit the model's hyperparameters";
        case TP_ERR_LAYOUT: return "there is no kernel for this tensor's layout in this place";
        case TP_ERR_BYTES: return "a tensor's size in bytes does not match its layout and shape";
        case TP_ERR_ISA: return "the instruction set is unknown or not available on this CPU";
        case TP_ERR_TOKEN: return "a token id lies outside the vocabulary";
        case TP_ERR_CONTEXT: return "the tokens do not fit into the session's context";
        case TP_ERR_MEMORY: return "not enough memory";
        case TP_ERR_THREADS: return "a thread could not be started";
    }
    return "unknown status";
}

/* elements and bytes of the smallest unit, bytes behind the last one, alignment */
static const struct { const char *name; int elements, bytes, trailer, align; } layouts[TP_LAYOUT_COUNT] = {
    [TP_LAYOUT_F32] = {"f32", 1, 4, 0, 4},
    [TP_LAYOUT_F16] = {"f16", 1, 2, 0, 2},
    [TP_LAYOUT_BF16] = {"bf16", 1, 2, 0, 2},
    [TP_LAYOUT_Q8_0] = {"q8_0", 32, Q8_0_BYTES, 0, 1},
    [TP_LAYOUT_Q6_K] = {"q6_k", 256, Q6_K_BYTES, 0, 1},
    [TP_LAYOUT_I2_S] = {"i2_s", 128, 32, 32, 1},
    [TP_LAYOUT_T2] = {"t2", 1, 0, 0, 1},    /* its header says more: t2_nbytes */
};

static int known(int layout) { return layout >= 0 && layout < TP_LAYOUT_COUNT; }

const char *tp_layout_name(int layout) { return known(layout) ? layouts[layout].name : NULL; }

int tp_layout_from_name(const char *name) {
    for (int i = 0; name && i < TP_LAYOUT_COUNT; i++)
        if (strcmp(name, layouts[i].name) == 0) return i;
    return -1;
}

/* ---- ternary layouts ---- */

enum { T2_HEADER = 32, T2_UNIT = 32, T2_MAGIC = 0x00013254, BLOCK = 128 };

int tp_is_ternary(int layout) { return layout == TP_LAYOUT_I2_S || layout == TP_LAYOUT_T2; }
int tp_kernel_layout(int layout) { return layout == TP_LAYOUT_T2 ? TP_LAYOUT_I2_S : layout; }
int64_t tp_padded_cols(int64_t cols) { return (cols + BLOCK - 1) / BLOCK * BLOCK; }

static uint64_t t2_codes(uint64_t scales) { return T2_HEADER + (4 * scales + T2_UNIT - 1) / T2_UNIT * T2_UNIT; }
static uint64_t t2_nbytes(int64_t rows, int64_t cols, uint64_t scales) { return t2_codes(scales) + (uint64_t)rows * (uint64_t)(tp_padded_cols(cols) / 4); }

/* 1 if the header fits the shape and the size. */
static int t2_header(const tp_tensor *t, int64_t *row_blocks, int64_t *col_blocks) {
    uint32_t words[3];
    if (t->nbytes < T2_HEADER) return 0;
    memcpy(words, t->data, sizeof words);
    *row_blocks = words[1];
    *col_blocks = words[2];
    return words[0] == T2_MAGIC && words[1] && words[2] && t->rows % *row_blocks == 0 && t->cols % *col_blocks == 0 &&
           t->nbytes == t2_nbytes(t->rows, t->cols, (uint64_t)words[1] * words[2]);
}

tp_ternary tp_ternary_of(const tp_tensor *t) {
    const uint8_t *data = t->data;
    tp_ternary parts = {*t, data + t->rows * t->cols / 4, 1, 1};
    if (t->layout == TP_LAYOUT_T2) {
        t2_header(t, &parts.row_blocks, &parts.col_blocks);
        parts.scales = data + T2_HEADER;
        parts.codes.data = data + t2_codes((uint64_t)(parts.row_blocks * parts.col_blocks));
        parts.codes.cols = tp_padded_cols(t->cols);
    }
    parts.codes.layout = tp_kernel_layout(t->layout);
    parts.codes.nbytes = (uint64_t)(parts.codes.rows * parts.codes.cols / 4);
    return parts;
}

float tp_row_scale(const tp_ternary *t, int64_t row, int64_t col_block) {
    return tp_load_f32(t->scales + 4 * (row / (t->codes.rows / t->row_blocks) * t->col_blocks + col_block));
}

void tp_decode_row(const tp_kernel *decode, const tp_ternary *t, int64_t row, int64_t cols, float *out) {
    const uint8_t *codes = (const uint8_t *)t->codes.data + row * (t->codes.cols / 4);
    const uint8_t *scales = t->scales + 4 * (row / (t->codes.rows / t->row_blocks) * t->col_blocks);
    decode->decode(codes, cols, scales, t->col_blocks, out);
}

uint64_t tp_tensor_nbytes(int layout, int64_t rows, int64_t cols) {
    if (!known(layout) || rows < 1 || cols < 1 || rows > INT32_MAX || cols > TP_MAX_COLS || cols % layouts[layout].elements) return 0;
    if (layout == TP_LAYOUT_T2) return t2_nbytes(rows, cols, 1);
    return (uint64_t)rows * (uint64_t)(cols / layouts[layout].elements) * (uint64_t)layouts[layout].bytes + (uint64_t)layouts[layout].trailer;
}

int tp_tensor_check(const tp_tensor *t) {
    if (!t || !t->data) return TP_ERR_ARGUMENT;
    if (!known(t->layout)) return TP_ERR_LAYOUT;
    const uint64_t nbytes = tp_tensor_nbytes(t->layout, t->rows, t->cols);
    int64_t blocks[2];
    if (nbytes == 0) return TP_ERR_SHAPE;
    if (t->layout == TP_LAYOUT_T2 ? !t2_header(t, &blocks[0], &blocks[1]) : nbytes != t->nbytes) return TP_ERR_BYTES;
    return (uintptr_t)t->data % (uintptr_t)layouts[t->layout].align ? TP_ERR_ARGUMENT : TP_OK;
}

static TP_NOINLINE int tensor_row(const tp_tensor *w, int64_t row, float *out) {
    const int status = tp_tensor_check(w);
    if (status) return status;
    if (!out || row < 0 || row >= w->rows) return TP_ERR_ARGUMENT;
    const uint16_t *half = (const uint16_t *)w->data + row * w->cols;
    switch ((tp_layout)w->layout) {
        case TP_LAYOUT_F32: memcpy(out, (const float *)w->data + row * w->cols, (size_t)w->cols * 4); return TP_OK;
        case TP_LAYOUT_F16:
            for (int64_t i = 0; i < w->cols; i++) out[i] = tp_f16_float(half[i]);
            return TP_OK;
        case TP_LAYOUT_BF16:
            for (int64_t i = 0; i < w->cols; i++) out[i] = tp_bf16_float(half[i]);
            return TP_OK;
        case TP_LAYOUT_Q8_0:
            for (int64_t i = 0; i < w->cols; i++) {
                const uint8_t *block = q8_0_row(w, row) + i / 32 * Q8_0_BYTES;
                out[i] = tp_f16_float(tp_load_u16(block)) * (float)(int8_t)block[2 + i % 32];
            }
            return TP_OK;
        case TP_LAYOUT_Q6_K:
            for (int64_t i = 0; i < w->cols; i++) {
                const uint8_t *block = q6_k_row(w, row) + i / 256 * Q6_K_BYTES;
                const int e = (int)(i % 256);
                out[i] = (tp_f16_float(tp_load_u16(block + Q6_K_D)) * (float)(int8_t)block[Q6_K_SCALES + e / 16]) * (float)(q6_k_code(block, e) - 32);
            }
            return TP_OK;
        case TP_LAYOUT_I2_S:
        case TP_LAYOUT_T2: {
            const tp_ternary parts = tp_ternary_of(w);
            tp_decode_row(tp_kernel_best(TP_OP_DECODE, parts.codes.layout, TP_ISA_SCALAR), &parts, row, w->cols, out);
            return TP_OK;
        }
        default: return TP_ERR_LAYOUT;
    }
}

int tp_tensor_row(const tp_tensor *w, int64_t row, float *out) {
    const tp_fpenv before = tp_fpenv_enter();
    const int status = tensor_row(w, row, out);
    tp_fpenv_leave(before);
    return status;
}

/* calloc, so that a big KV cache costs no memory before it is used; the real pointer lies before the aligned one. */
void *tp_alloc(size_t count, size_t size) {
    if (size && count > (SIZE_MAX - 128) / size) return NULL;
    void *real = calloc(1, count * size + 64 + sizeof(void *));
    if (!real) return NULL;
    const uintptr_t p = ((uintptr_t)real + sizeof(void *) + 63) / 64 * 64;
    ((void **)p)[-1] = real;
    return (void *)p;
}

void tp_free(void *p) {
    if (p) free(((void **)p)[-1]);
}
