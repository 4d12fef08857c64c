/* Ternary rows to floats, in plain C. */
#include "dequantize.h"

void dequantize_i2_s_scalar(const uint8_t *codes, int64_t cols, const float *scales,
                            int64_t col_blocks, float *out) {
    dequantize_i2_s(codes, cols, scales, col_blocks, out);
}

void dequantize_u8_scalar(const uint8_t *codes, int64_t cols, const float *scales,
                          int64_t col_blocks, float *out) {
    dequantize_u8(codes, cols, scales, col_blocks, out);
}
