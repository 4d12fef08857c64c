#include "floatvec.h"

void floatvec_u8_avx2(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols, const float *scales, int64_t col_blocks, const float *x,
                      float *out) {
    floatvec(codes, ld, rows, cols, scales, col_blocks, 0, x, out);
}
