#include <immintrin.h>

#include "../i2_s.h"

/* maddubs leaves pairs in int16: at most 2 * 3 * 128 = 768 a product, 4 products a block, so 8 blocks (24576) are safe
 * before they are widened to int32. */
enum { BLOCKS_IN_INT16 = 8 };

static inline int32_t sum_lanes(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

void matvec_i2_s_avx2(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                      int64_t ld, void *scratch) {
    assert(n == 1 && w->cols % 128 == 0 && 0 <= row0 && row1 <= w->rows);
    (void)scratch, (void)ld, (void)n;
    const int64_t blocks = w->cols / 128;
    const __m256i three = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    for (int64_t r = row0; r < row1; r++) {
        const uint8_t *codes = i2_s_row(w, r);
        const int8_t *q = acts;
        __m256i sum = _mm256_setzero_si256();
        for (int64_t b = 0; b < blocks;) {
            const int64_t stop = b + BLOCKS_IN_INT16 < blocks ? b + BLOCKS_IN_INT16 : blocks;
            __m256i s01 = _mm256_setzero_si256(), s23 = _mm256_setzero_si256();
            for (; b < stop; b++, codes += 32, q += 128) {
                _mm_prefetch((const char *)codes + 4096, _MM_HINT_T0);
                const __m256i v = _mm256_loadu_si256((const __m256i *)codes);
                const __m256i c0 = _mm256_and_si256(_mm256_srli_epi16(v, 6), three);
                const __m256i c1 = _mm256_and_si256(_mm256_srli_epi16(v, 4), three);
                const __m256i c2 = _mm256_and_si256(_mm256_srli_epi16(v, 2), three);
                const __m256i c3 = _mm256_and_si256(v, three);
                const __m256i p0 = _mm256_maddubs_epi16(c0, _mm256_loadu_si256((const __m256i *)q));
                const __m256i p1 = _mm256_maddubs_epi16(c1, _mm256_loadu_si256((const __m256i *)(q + 32)));
                const __m256i p2 = _mm256_maddubs_epi16(c2, _mm256_loadu_si256((const __m256i *)(q + 64)));
                const __m256i p3 = _mm256_maddubs_epi16(c3, _mm256_loadu_si256((const __m256i *)(q + 96)));
                s01 = _mm256_add_epi16(s01, _mm256_add_epi16(p0, p1));
                s23 = _mm256_add_epi16(s23, _mm256_add_epi16(p2, p3));
            }
            sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(s01, ones), _mm256_madd_epi16(s23, ones)));
        }
        out[r - row0] = sum_lanes(sum) - sum_q[0];
    }
}
