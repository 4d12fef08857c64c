#include <immintrin.h>

#include "../u8.h"

/* maddubs leaves pairs in int16: at most 2 * 3 * 128 = 768, so 32 of them (24576) are safe before they are widened to int32. */
enum { COLS_IN_INT16 = 32 * 32 };

static inline int32_t sum_lanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

void matvec_u8_avx2(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                    int64_t ld, void *scratch) {
    assert(n == 1 && w->cols % 128 == 0 && 0 <= row0 && row1 <= w->rows);
    (void)scratch, (void)ld, (void)n;
    const int8_t *q = acts;
    const __m256i ones = _mm256_set1_epi16(1);
    for (int64_t r = row0; r < row1; r++) {
        const uint8_t *codes = u8_row(w, r);
        __m256i sum = _mm256_setzero_si256();
        for (int64_t c = 0; c < w->cols;) {
            const int64_t stop = c + COLS_IN_INT16 < w->cols ? c + COLS_IN_INT16 : w->cols;
            __m256i s = _mm256_setzero_si256();
            for (; c < stop; c += 32)
                s = _mm256_add_epi16(s, _mm256_maddubs_epi16(_mm256_loadu_si256((const __m256i *)(codes + c)), _mm256_loadu_si256((const __m256i *)(q + c))));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(s, ones));
        }
        out[r - row0] = sum_lanes(sum) - sum_q[0];
    }
}
