/* Rows of plain codes to floats: elementwise, so that the compiler vectorises it for each instruction set. */
#include "../common.h"

TP_INLINE void decode_body(const uint8_t *restrict codes, int64_t cols, const float *scales, int64_t col_blocks, float *restrict out) {
    const int64_t width = cols / col_blocks;
    for (int64_t b = 0; b < col_blocks; b++, codes += width, out += width) {
        const float scale = scales[b];
        for (int64_t i = 0; i < width; i++) out[i] = (float)(codes[i] - 1) * scale;
    }
}
