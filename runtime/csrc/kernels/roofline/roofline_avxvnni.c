/* How fast int8 is multiplied, for AVX-VNNI. */
#include "../simd_i8/avxvnni.h"

#define EACH12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define ZERO(i) __m256i a##i = _mm256_setzero_si256();
#define DOT(i) dot256_u8_s8(&a##i, u, s);
#define SAME(i) same &= _mm256_movemask_epi8(_mm256_cmpeq_epi32(a##i, a0)) == -1;

/* Two rounds of 12 words of 32 bytes are one of 64; each accumulator has both. */
uint64_t dots_u8_avxvnni(const uint8_t *us, int64_t n) {
    const __m256i u = _mm256_set1_epi8((char)us[0]), s = _mm256_set1_epi8((char)us[1]);
    int same = 1;
    EACH12(ZERO)
    for (int64_t i = 0; i < n; i++) {
        EACH12(DOT) EACH12(DOT)
    }
    EACH12(SAME)
    const uint32_t want = (uint32_t)(n * 4 * us[0] * (int8_t)us[1]);
    return same && (uint32_t)_mm_cvtsi128_si32(_mm256_castsi256_si128(a0)) == 2 * want ? want
                                                                                       : UINT64_MAX;
}
