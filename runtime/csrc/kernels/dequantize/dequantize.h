/* Ternary rows to floats: elementwise, so that the compiler vectorises it for each instruction
 * set. */
#ifndef TRITPACK_DEQUANTIZE_H
#define TRITPACK_DEQUANTIZE_H

#include "../i2_s.h"

TP_INLINE void dequantize_block(const uint8_t *restrict codes /* (32) */, float scale,
                                float *restrict out /* (128) */) {
    for (int g = 0; g < 4; g++)
        for (int p = 0; p < 32; p++)
            out[32 * g + p] = (float)((codes[p] >> (6 - 2 * g) & 3) - 1) * scale;
}

TP_INLINE void dequantize_i2_s(const uint8_t *codes, int64_t cols, const float *scales,
                               int64_t col_blocks, float *out) {
    const int64_t whole = cols / 128 * 128, width = cols / col_blocks;
    const float first = col_blocks == 1 ? scales[0] : 1.0f;
    for (int64_t c = 0; c < whole; c += 128) dequantize_block(codes + c / 4, first, out + c);
    if (whole < cols) {
        float last[128];
        dequantize_block(codes + whole / 4, first, last);
        memcpy(out + whole, last, (size_t)(cols - whole) * sizeof(float));
    }
    for (int64_t b = 0; col_blocks > 1 && b < col_blocks; b++)
        for (int64_t i = 0; i < width; i++) out[b * width + i] *= scales[b];
}

TP_INLINE void dequantize_u8(const uint8_t *restrict codes, int64_t cols, const float *scales,
                             int64_t col_blocks, float *restrict out) {
    const int64_t width = cols / col_blocks;
    for (int64_t b = 0; b < col_blocks; b++, codes += width, out += width) {
        const float scale = scales[b];
        for (int64_t i = 0; i < width; i++) out[i] = (float)(codes[i] - 1) * scale;
    }
}

#endif
