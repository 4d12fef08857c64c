/* The output head in plain C: the specification. */
#include "../quants.h"

void lm_head_f32_scalar(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                        int64_t row1, float *out, int64_t ld) {
    assert(0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t r = row0; r < row1; r++) {
        const float *row = (const float *)w->data + r * w->cols;
        for (int64_t t = 0; t < n; t++) {
            float lanes[16] = {0};
            for (int64_t i = 0; i < w->cols; i++) lanes[i % 16] += row[i] * x->x[t * w->cols + i];
            out[t * ld + r - row0] = tp_tree16(lanes);
        }
    }
}

void lm_head_f16_scalar(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                        int64_t row1, float *out, int64_t ld) {
    assert(0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t r = row0; r < row1; r++) {
        const uint16_t *row = (const uint16_t *)w->data + r * w->cols;
        for (int64_t t = 0; t < n; t++) {
            float lanes[16] = {0};
            for (int64_t i = 0; i < w->cols; i++)
                lanes[i % 16] += tp_f16_float(row[i]) * x->x[t * w->cols + i];
            out[t * ld + r - row0] = tp_tree16(lanes);
        }
    }
}

void lm_head_bf16_scalar(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                         int64_t row1, float *out, int64_t ld) {
    assert(0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t r = row0; r < row1; r++) {
        const uint16_t *row = (const uint16_t *)w->data + r * w->cols;
        for (int64_t t = 0; t < n; t++) {
            float lanes[16] = {0};
            for (int64_t i = 0; i < w->cols; i++)
                lanes[i % 16] += tp_bf16_float(row[i]) * x->x[t * w->cols + i];
            out[t * ld + r - row0] = tp_tree16(lanes);
        }
    }
}

void lm_head_q8_0_scalar(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                         int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 32 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t r = row0; r < row1; r++)
        for (int64_t t = 0; t < n; t++) {
            const uint8_t *row = q8_0_row(w, r);
            float lanes[16] = {0};
            for (int64_t i = 0; i < w->cols / 4; i++) {
                const uint8_t *block = row + i / 8 * Q8_0_BYTES;
                const float f = tp_f16_float(tp_load_u16(block)) * x->step[t * x->blocks + i / 64];
                int32_t v = 0;
                for (int j = 0; j < 4; j++)
                    v += (int8_t)block[2 + i % 8 * 4 + j] *
                         x->q[t * x->padded + acts16_index(4 * i + j)];
                lanes[i % 16] += (float)v * f;
            }
            out[t * ld + r - row0] = tp_tree16(lanes);
        }
}

void lm_head_q6_k_scalar(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                         int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t r = row0; r < row1; r++)
        for (int64_t t = 0; t < n; t++) {
            const uint8_t *row = q6_k_row(w, r);
            float lanes[16] = {0};
            for (int64_t i = 0; i < w->cols / 4; i++) {
                const uint8_t *block = row + i / 64 * Q6_K_BYTES;
                const int e = (int)(i % 64) * 4;
                const float d =
                    tp_f16_float(tp_load_u16(block + Q6_K_D)) * x->step[t * x->blocks + i / 64];
                const float f = d * (float)(int8_t)block[Q6_K_SCALES + e / 16];
                int32_t v = 0;
                for (int j = 0; j < 4; j++)
                    v += (q6_k_code(block, e + j) - 32) *
                         x->q[t * x->padded + acts16_index(4 * i + j)];
                lanes[i % 16] += (float)v * f;
            }
            out[t * ld + r - row0] = tp_tree16(lanes);
        }
}

void lm_head_q4_k_scalar(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                         int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t r = row0; r < row1; r++)
        for (int64_t t = 0; t < n; t++) {
            float lanes[16] = {0};
            uint8_t scales[8], offsets[8];
            for (int64_t i = 0; i < w->cols / 4; i++) {
                const uint8_t *block = q4_k_row(w, r) + i / 64 * Q4_K_BYTES;
                const int e = (int)(i % 64) * 4;
                const float step = x->step[t * x->blocks + i / 64];
                q4_k_scales(block, scales, offsets);
                const float f = (tp_f16_float(tp_load_u16(block)) * step) * (float)scales[e / 32];
                const float g = ((tp_f16_float(tp_load_u16(block + Q4_K_DMIN)) * step) *
                                 (float)offsets[e / 32]) *
                                0.03125f;
                int32_t v = 0;
                for (int j = 0; j < 4; j++)
                    v += q4_k_code(block, e + j) * x->q[t * x->padded + acts16_index(4 * i + j)];
                lanes[i % 16] += (float)v * f;
                lanes[i % 16] += (float)x->bias[t * (x->padded / 4) + i] * g;
            }
            out[t * ld + r - row0] = tp_tree16(lanes);
        }
}
