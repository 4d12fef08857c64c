/* Ternary rows to floats, for AVX-512 VNNI. */
#include "dequantize.h"

void dequantize_i2_s_avx512vnni(const uint8_t *codes, int64_t cols, const float *scales,
                                int64_t col_blocks, float *out) {
    dequantize_i2_s(codes, cols, scales, col_blocks, out);
}

void dequantize_u8_avx512vnni(const uint8_t *codes, int64_t cols, const float *scales,
                              int64_t col_blocks, float *out) {
    dequantize_u8(codes, cols, scales, col_blocks, out);
}
