/* How fast memory is read and int8 multiplied, for AVX2. */
#include <immintrin.h>

#include "../common.h"

uint64_t read_u8_avx2(const uint8_t *data, int64_t n) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    assert(n % 256 == 0);
    for (int64_t i = 0; i < n; i += 128) {
        const __m256i *p = (const __m256i *)(const void *)(data + i);
        a = _mm256_xor_si256(a, _mm256_loadu_si256(p));
        b = _mm256_xor_si256(b, _mm256_loadu_si256(p + 1));
        c = _mm256_xor_si256(c, _mm256_loadu_si256(p + 2));
        d = _mm256_xor_si256(d, _mm256_loadu_si256(p + 3));
    }
    uint64_t w[4];
    _mm256_storeu_si256((__m256i *)(void *)w,
                        _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
    return w[0] ^ w[1] ^ w[2] ^ w[3];
}

#define EACH6(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define ZERO(i) __m256i a##i = _mm256_setzero_si256(), b##i = a##i;
#define DOT(i) \
    pairs(&a##i, u, s); \
    pairs(&b##i, u, s);
#define SAME(i) \
    same &= _mm256_movemask_epi8(_mm256_and_si256(_mm256_cmpeq_epi16(a##i, a0), \
                                                  _mm256_cmpeq_epi16(b##i, a0))) == -1;

/* Products of pairs added in int16, as the matrix product does between widenings: 12 * 2 of 32
 * bytes a round. */
TP_INLINE void pairs(__m256i *acc, __m256i u, __m256i s) {
    __m256i t;
    __asm__ volatile("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
                     : "+x"(*acc), "=&x"(t)
                     : "x"(u), "x"(s));
}

uint64_t dots_u8_avx2(const uint8_t *us, int64_t n) {
    const __m256i u = _mm256_set1_epi8((char)us[0]), s = _mm256_set1_epi8((char)us[1]);
    int same = 1;
    EACH6(ZERO)
    for (int64_t i = 0; i < n; i++) {
        EACH6(DOT) EACH6(DOT)
    }
    EACH6(SAME)
    /* Every int16 holds 2 n sums of pairs, which is n sums of the four products of a lane,
     * modulo 2^16. */
    const uint32_t want = (uint32_t)(n * 4 * us[0] * (int8_t)us[1]);
    return same && (uint16_t)_mm256_extract_epi16(a0, 0) == (uint16_t)want ? want : UINT64_MAX;
}
