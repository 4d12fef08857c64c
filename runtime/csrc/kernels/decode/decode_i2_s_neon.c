#include "decode_i2_s.h"

void decode_i2_s_neon(const uint8_t *codes, int64_t cols, const float *scales, int64_t col_blocks, float *out) {
    decode_body(codes, cols, scales, col_blocks, out);
}
