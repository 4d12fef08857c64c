#include "decode_u8.h"

void decode_u8_simd128(const uint8_t *codes, int64_t cols, const float *scales, int64_t col_blocks, float *out) {
    decode_body(codes, cols, scales, col_blocks, out);
}
