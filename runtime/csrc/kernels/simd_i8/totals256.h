/* Sums over the lanes of 256-bit words. */
#ifndef TRITPACK_TOTALS256_H
#define TRITPACK_TOTALS256_H

#include <immintrin.h>

#include "../common.h"

TP_INLINE int32_t V_TOTAL(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

TP_INLINE void V_TOTALS(const __m256i v[4], int32_t *out) {
    const __m256i s =
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    _mm_storeu_si128((__m128i *)(void *)out,
                     _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)));
}

TP_INLINE void V_ADD_QUADS(__m256i v, int32_t *totals) {
    const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storeu_si128((__m128i *)(void *)totals,
                     _mm_add_epi32(_mm_loadu_si128((const __m128i *)(const void *)totals), sum));
}

#endif
