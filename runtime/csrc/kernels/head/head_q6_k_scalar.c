#include "../quants.h"

void head_q6_k_scalar(const tp_tensor *w, const tp_head_acts *x, int64_t n, int64_t row0, int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t r = row0; r < row1; r++)
        for (int64_t t = 0; t < n; t++) {
            const uint8_t *row = q6_k_row(w, r);
            float lanes[16] = {0};
            for (int64_t i = 0; i < w->cols / 4; i++) {
                const uint8_t *block = row + i / 64 * Q6_K_BYTES;
                const int e = (int)(i % 64) * 4;
                const float d = tp_f16_float(tp_load_u16(block + Q6_K_D)) * x->step[t * x->blocks + i / 64];
                const float f = d * (float)(int8_t)block[Q6_K_SCALES + e / 16];
                int32_t v = 0;
                for (int j = 0; j < 4; j++) v += (q6_k_code(block, e + j) - 32) * x->q[t * x->padded + acts16_index(4 * i + j)];
                lanes[i % 16] += (float)v * f;
            }
            out[t * ld + r - row0] = tp_tree16(lanes);
        }
}
