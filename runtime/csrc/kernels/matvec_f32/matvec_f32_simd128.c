/* Ternary rows by floats, for WebAssembly's SIMD128. */
#include "matvec_f32.h"

void matvec_f32_i2_s_simd128(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                             const float *scales, int64_t col_blocks, const float *x, float *out) {
    matvec_f32(codes, ld, rows, cols, scales, col_blocks, 1, x, out);
}

void matvec_f32_u8_simd128(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                           const float *scales, int64_t col_blocks, const float *x, float *out) {
    matvec_f32(codes, ld, rows, cols, scales, col_blocks, 0, x, out);
}
