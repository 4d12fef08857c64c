#include "../quants.h"

void head_q4_k_scalar(const tp_tensor *w, const tp_head_acts *x, int64_t n, int64_t row0, int64_t row1, float *out, int64_t ld) {
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
                const float g = ((tp_f16_float(tp_load_u16(block + Q4_K_DMIN)) * step) * (float)offsets[e / 32]) * 0.03125f;
                int32_t v = 0;
                for (int j = 0; j < 4; j++) v += q4_k_code(block, e + j) * x->q[t * x->padded + acts16_index(4 * i + j)];
                lanes[i % 16] += (float)v * f;
                lanes[i % 16] += (float)x->bias[t * (x->padded / 4) + i] * g;
            }
            out[t * ld + r - row0] = tp_tree16(lanes);
        }
}
