/* Single rows of tensors as floats. */
#include <string.h>

#include "fpenv.h"
#include "internal.h"
#include "kernels/quants.h"

static int ternary_row(const tp_tensor *w, int64_t row, float *out) {
    const tp_ternary parts = tp_ternary_of(w);
    void *scratch = tp_alloc(1, tp_dequantize_scratch(w->cols));
    if (!scratch) return TP_ERR_MEMORY;
    tp_dequantize_row(tp_kernel_plan_for(TP_OP_DEQUANTIZE, w->layout, TP_ISA_SCALAR), &parts, row,
                      out, scratch);
    tp_free(scratch);
    return TP_OK;
}

static void q8_0_floats(const uint8_t *blocks, int64_t cols, float *out) {
    for (int64_t i = 0; i < cols; i++) {
        const uint8_t *block = blocks + i / 32 * Q8_0_BYTES;
        out[i] = tp_f16_float(tp_load_u16(block)) * (float)(int8_t)block[2 + i % 32];
    }
}

static void q6_k_floats(const uint8_t *blocks, int64_t cols, float *out) {
    for (int64_t i = 0; i < cols; i++) {
        const uint8_t *block = blocks + i / 256 * Q6_K_BYTES;
        const int e = (int)(i % 256);
        const float scale =
            tp_f16_float(tp_load_u16(block + Q6_K_D)) * (float)(int8_t)block[Q6_K_SCALES + e / 16];
        out[i] = scale * (float)(q6_k_code(block, e) - 32);
    }
}

static void q4_k_floats(const uint8_t *blocks, int64_t cols, float *out) {
    for (int64_t i = 0; i < cols; i++) {
        const uint8_t *block = blocks + i / 256 * Q4_K_BYTES;
        const int e = (int)(i % 256);
        uint8_t scales[8], offsets[8];
        q4_k_scales(block, scales, offsets);
        const float weight =
            (tp_f16_float(tp_load_u16(block)) * (float)scales[e / 32]) * (float)q4_k_code(block, e);
        out[i] = weight - tp_f16_float(tp_load_u16(block + Q4_K_DMIN)) * (float)offsets[e / 32];
    }
}

static TP_NOINLINE int tensor_row(const tp_tensor *w, int64_t row, float *out) {
    const int status = tp_tensor_check(w);
    if (status) return status;
    if (!out || row < 0 || row >= w->rows) return TP_ERR_ARGUMENT;
    if (tp_is_ternary(w->layout)) return ternary_row(w, row, out);
    switch ((tp_layout)w->layout) {
        case TP_LAYOUT_F32:
            memcpy(out, (const float *)w->data + row * w->cols, (size_t)w->cols * 4);
            return TP_OK;
        case TP_LAYOUT_F16:
            for (int64_t i = 0; i < w->cols; i++)
                out[i] = tp_f16_float(((const uint16_t *)w->data)[row * w->cols + i]);
            return TP_OK;
        case TP_LAYOUT_BF16:
            for (int64_t i = 0; i < w->cols; i++)
                out[i] = tp_bf16_float(((const uint16_t *)w->data)[row * w->cols + i]);
            return TP_OK;
        case TP_LAYOUT_Q8_0: q8_0_floats(q8_0_row(w, row), w->cols, out); return TP_OK;
        case TP_LAYOUT_Q6_K: q6_k_floats(q6_k_row(w, row), w->cols, out); return TP_OK;
        case TP_LAYOUT_Q4_K: q4_k_floats(q4_k_row(w, row), w->cols, out); return TP_OK;
        default: return TP_ERR_LAYOUT;
    }
}

int tp_tensor_row(const tp_tensor *w, int64_t row, float *out) {
    const tp_fpenv before = tp_fpenv_enter();
    const int status = tensor_row(w, row, out);
    tp_fpenv_leave(before);
    return status;
}
