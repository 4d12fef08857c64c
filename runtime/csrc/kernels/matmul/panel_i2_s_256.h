/* Sixteen rows of I2_S as a panel of matmul_avx2.h. */
#include "matmul_avx2.h"

#include "../i2_s.h"

static void unpack_i2_s(const tp_tensor *w, int64_t row, int rows, uint8_t *panel) {
    const __m256i three = _mm256_set1_epi8(3);
    for (int64_t byte = 0; byte < w->cols / 4; byte += 32)
        for (int half = 0; half < 2; half++) {
            __m256i v[8];
            for (int i = 0; i < 8; i++) {
                const int r = 8 * half + i;
                if (r < rows) __builtin_prefetch(i2_s_row(w, row + r) + byte + 256, 0, 3);     /* 16 streams: more than the CPU follows by itself */
                v[i] = r < rows ? _mm256_loadu_si256((const __m256i *)(i2_s_row(w, row + r) + byte)) : _mm256_setzero_si256();
            }
            transpose8(v);
            for (int p = 0; p < 8; p++) {       /* columns 4 byte + 32 g + 4 p .. + 3 */
                uint8_t *to = panel + (byte + p) * 64 + 32 * half;
                _mm256_store_si256((__m256i *)to, _mm256_and_si256(_mm256_srli_epi16(v[p], 6), three));
                _mm256_store_si256((__m256i *)(to + 8 * 64), _mm256_and_si256(_mm256_srli_epi16(v[p], 4), three));
                _mm256_store_si256((__m256i *)(to + 16 * 64), _mm256_and_si256(_mm256_srli_epi16(v[p], 2), three));
                _mm256_store_si256((__m256i *)(to + 24 * 64), _mm256_and_si256(v[p], three));
            }
        }
}
