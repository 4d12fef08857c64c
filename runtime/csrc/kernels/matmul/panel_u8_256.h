/* Sixteen rows of plain codes as a panel of matmul_avx2.h. */
#include "matmul_avx2.h"

#include "../u8.h"

static void unpack_u8(const tp_tensor *w, int64_t row, int rows, uint8_t *panel) {
    for (int64_t c = 0; c < w->cols; c += 32)
        for (int half = 0; half < 2; half++) {
            __m256i v[8];
            for (int i = 0; i < 8; i++) {
                const int r = 8 * half + i;
                v[i] = r < rows ? _mm256_loadu_si256((const __m256i *)(u8_row(w, row + r) + c)) : _mm256_setzero_si256();
            }
            transpose8(v);
            for (int p = 0; p < 8; p++) _mm256_store_si256((__m256i *)(panel + (c / 4 + p) * 64 + 32 * half), v[p]);
        }
}
