/* Ternary rows by floats in plain C: the specification. */
#include "../common.h"

void matvec_f32_i2_s_scalar(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                            const float *scales, int64_t col_blocks, const float *x, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *row = codes + r * ld;
        float lanes[16] = {0};
        for (int64_t c = 0; c < cols; c++) {
            const int code = row[c / 128 * 32 + c % 32] >> (6 - 2 * (c % 128 / 32)) & 3;
            lanes[c % 16] +=
                ((float)(code - 1) * scales[r * col_blocks + c / (cols / col_blocks)]) * x[c];
        }
        out[r] = tp_tree16(lanes);
    }
}

void matvec_f32_u8_scalar(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                          const float *scales, int64_t col_blocks, const float *x, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *row = codes + r * ld;
        float lanes[16] = {0};
        for (int64_t c = 0; c < cols; c++)
            lanes[c % 16] +=
                ((float)((row[c]) - 1) * scales[r * col_blocks + c / (cols / col_blocks)]) * x[c];
        out[r] = tp_tree16(lanes);
    }
}
