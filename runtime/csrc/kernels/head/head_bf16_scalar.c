#include "../common.h"

void head_bf16_scalar(const tp_tensor *w, const tp_head_acts *x, int64_t n, int64_t row0, int64_t row1, float *out, int64_t ld) {
    assert(0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t r = row0; r < row1; r++) {
        const uint16_t *row = (const uint16_t *)w->data + r * w->cols;
        for (int64_t t = 0; t < n; t++) {
            float lanes[16] = {0};
            for (int64_t i = 0; i < w->cols; i++) lanes[i % 16] += tp_bf16_float(row[i]) * x->x[t * w->cols + i];
            out[t * ld + r - row0] = tp_tree16(lanes);
        }
    }
}
