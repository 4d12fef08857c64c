/* Deterministic data for the self-test, the C tests and benchmarks: numbers, and tensors of
 * every layout. */
#include <stdlib.h>
#include <string.h>

#include "../kernels/quants.h"
#include "selftest.h"

uint32_t tp_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(*state * UINT64_C(2685821657736338717) >> 33);
}

float tp_random_float(uint64_t *state) {
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(tp_random(state) >> 7) * (1.0f / 8388608.0f) - 1.0f; /* 24 bits: exact */
    return sum * 0.8660254f;
}

tp_tensor tp_test_tensor(int layout, int64_t rows, int64_t cols) {
    tp_tensor t = {.rows = rows,
                   .cols = cols,
                   .nbytes = tp_tensor_nbytes(layout, rows, cols),
                   .layout = layout,
                   .scale = 1};
    if (layout == TP_LAYOUT_TL1) t.tile[0] = 32, t.tile[1] = 64, t.tile[2] = 32;
    if (layout == TP_LAYOUT_TL2) t.tile[0] = 32, t.tile[1] = 96, t.tile[2] = 32;
    if (!tp_tile_fits(&t)) t.nbytes = 0;
    return t;
}

void tp_random_weights(int8_t *codes, int64_t n, uint64_t *state) {
    for (int64_t i = 0; i < n; i++) codes[i] = (int8_t)(tp_random(state) % 3) - 1;
}

static int random_ternary(const tp_tensor *t, uint8_t *data, uint64_t *state) {
    int8_t *codes = malloc((size_t)(t->rows * t->cols));
    if (!codes) return -1;
    tp_random_weights(codes, t->rows * t->cols, state);
    memset(data, 0, t->nbytes);
    if (t->layout == TP_LAYOUT_T2 || t->layout == TP_LAYOUT_T158) { /* a header with one scale */
        const uint32_t blocks[2] = {1, 1};
        memcpy(data, t->layout == TP_LAYOUT_T2 ? "T2\1" : "T158", 4);
        memcpy(data + 4, blocks, sizeof blocks);
    }
    tp_tensor whole = *t;
    whole.data = data;
    const tp_ternary parts = tp_ternary_of(&whole);
    const int64_t width = t->cols / parts.col_blocks;
    for (int64_t r = 0; r < t->rows; r += parts.rows_per_scale)
        for (int64_t b = 0; b < parts.col_blocks; b++) {
            float scale = 0.75f;
            if (parts.rows_per_scale == 1)
                scale = b == 0 && r % 5 == 4 ? 0.0f : 0.75f * (float)(1 << r % 3);
            const uint16_t half = tp_float_f16(scale);
            memcpy(data + (tp_scales_at(&parts, r) - data) + b * parts.block_bytes,
                   parts.half ? (const void *)&half : &scale, parts.half ? 2 : 4);
            if (scale == 0)
                memset(codes + r * t->cols + b * width, 0,
                       (size_t)width); /* every packer writes zeros there */
        }
    tp_kernel_best(TP_OP_PACK, t->layout, TP_ISA_SCALAR)
        ->pack(codes, &whole, (uint8_t *)(uintptr_t)parts.body.data);
    free(codes);
    return 0;
}

int tp_random_body(const tp_tensor *t, uint8_t *data, uint8_t *body, uint64_t *state) {
    tp_tensor whole = *t;
    whole.data = data;
    whole.nbytes = tp_tensor_nbytes(t->layout, t->rows, t->cols);
    const int status = tp_random_tensor(&whole, data, state);
    if (!status)
        memcpy(body, tp_is_ternary(t->layout) ? tp_ternary_of(&whole).body.data : data, t->nbytes);
    return status;
}

int tp_random_tensor(const tp_tensor *t, uint8_t *data, uint64_t *state) {
    const uint64_t block = t->layout == TP_LAYOUT_Q8_0   ? Q8_0_BYTES
                           : t->layout == TP_LAYOUT_Q6_K ? Q6_K_BYTES
                                                         : Q4_K_BYTES;
    for (uint64_t i = 0; i < t->nbytes; i++) data[i] = (uint8_t)tp_random(state);
    switch ((tp_layout)t->layout) {
        case TP_LAYOUT_F32:
            for (int64_t i = 0; i < t->rows * t->cols; i++) {
                const float f = tp_random_float(state);
                memcpy(data + 4 * i, &f, 4);
            }
            break;
        case TP_LAYOUT_F16:
        case TP_LAYOUT_BF16:
            for (int64_t i = 0; i < t->rows * t->cols; i++) {
                const float f = tp_random_float(state);
                const uint16_t h = t->layout == TP_LAYOUT_F16 ? tp_float_f16(f)
                                                              : (uint16_t)(tp_float_bits(f) >> 16);
                memcpy(data + 2 * i, &h, 2);
            }
            break;
        case TP_LAYOUT_Q8_0:
        case TP_LAYOUT_Q6_K:
        case TP_LAYOUT_Q4_K:
            for (uint64_t i = 0; i < t->nbytes; i += block) {
                const uint16_t h = tp_float_f16(tp_random_float(state) * 0.01f);
                memcpy(data + i + (t->layout == TP_LAYOUT_Q6_K ? Q6_K_D : 0), &h, 2);
                const uint16_t less = tp_float_f16(tp_random_float(state) * 0.01f);
                if (t->layout == TP_LAYOUT_Q4_K) memcpy(data + i + Q4_K_DMIN, &less, 2);
            }
            break;
        case TP_LAYOUT_U8:
            for (uint64_t i = 0; i < t->nbytes; i++) data[i] %= 3;
            break;
        default: return tp_is_ternary(t->layout) ? random_ternary(t, data, state) : 0;
    }
    return 0;
}
