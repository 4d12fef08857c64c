/* Ternary rows by floats, for AVX-512 VNNI. */
#include "matvec_f32.h"

void matvec_f32_i2_s_avx512vnni(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                                const float *scales, int64_t col_blocks, const float *x,
                                float *out) {
    matvec_f32(codes, ld, rows, cols, scales, col_blocks, I2_S, x, out);
}

void matvec_f32_pq2_0_avx512vnni(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                                 const float *scales, int64_t col_blocks, const float *x,
                                 float *out) {
    matvec_f32(codes, ld, rows, cols, scales, col_blocks, PQ2_0, x, out);
}

void matvec_f32_ptq1_0_avx512vnni(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                                  const float *scales, int64_t col_blocks, const float *x,
                                  float *out) {
    matvec_f32(codes, ld, rows, cols, scales, col_blocks, PTQ1_0, x, out);
}

void matvec_f32_u8_avx512vnni(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                              const float *scales, int64_t col_blocks, const float *x, float *out) {
    matvec_f32(codes, ld, rows, cols, scales, col_blocks, BYTES, x, out);
}
