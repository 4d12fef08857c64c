/* Single rows of tensors as floats. And the errors' sentences, and memory. */
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
        case TP_ERR_SHAPE: return "a tensor's shape does not fit its layout, its tiles or the model's hyperparameters";
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

static TP_NOINLINE int tensor_row(const tp_tensor *w, int64_t row, float *out) {
    const int status = tp_tensor_check(w);
    if (status) return status;
    if (!out || row < 0 || row >= w->rows) return TP_ERR_ARGUMENT;
    if (tp_is_ternary(w->layout)) {
        const tp_ternary parts = tp_ternary_of(w);
        void *scratch = tp_alloc(1, tp_dequantize_scratch(w->cols));
        if (!scratch) return TP_ERR_MEMORY;
        tp_dequantize_row(tp_way_of(TP_OP_DEQUANTIZE, w->layout, TP_ISA_SCALAR), &parts, row, out, scratch);
        tp_free(scratch);
        return TP_OK;
    }
    switch ((tp_layout)w->layout) {
        case TP_LAYOUT_F32: memcpy(out, (const float *)w->data + row * w->cols, (size_t)w->cols * 4); return TP_OK;
        case TP_LAYOUT_F16:
            for (int64_t i = 0; i < w->cols; i++) out[i] = tp_f16_float(((const uint16_t *)w->data)[row * w->cols + i]);
            return TP_OK;
        case TP_LAYOUT_BF16:
            for (int64_t i = 0; i < w->cols; i++) out[i] = tp_bf16_float(((const uint16_t *)w->data)[row * w->cols + i]);
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
        case TP_LAYOUT_Q4_K:
            for (int64_t i = 0; i < w->cols; i++) {
                const uint8_t *block = q4_k_row(w, row) + i / 256 * Q4_K_BYTES;
                const int e = (int)(i % 256);
                uint8_t scales[8], offsets[8];
                q4_k_scales(block, scales, offsets);
                out[i] = (tp_f16_float(tp_load_u16(block)) * (float)scales[e / 32]) * (float)q4_k_code(block, e) -
                         tp_f16_float(tp_load_u16(block + Q4_K_DMIN)) * (float)offsets[e / 32];
            }
            return TP_OK;
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
