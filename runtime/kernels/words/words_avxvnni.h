#ifndef TRITPACK_WORDS_AVXVNNI_H
#define TRITPACK_WORDS_AVXVNNI_H

#include "../avxvnni.h"

#define V __m256i
#define WORD 32
#define V_ZERO _mm256_setzero_si256()
#define V_LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define V_SPLAT8(x) _mm256_set1_epi8((char)(x))
#define V_AND _mm256_and_si256
#define V_ADD8 _mm256_add_epi8
#define V_ADD32 _mm256_add_epi32
#define V_SUB32 _mm256_sub_epi32
#define V_SAR32 _mm256_srai_epi32
#define V_DOT dot256_u8_s8

TP_INLINE int32_t V_TOTAL(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

TP_INLINE void V_ADD_QUADS(__m256i v, int32_t *totals) {
    const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storeu_si128((__m128i *)(void *)totals, _mm_add_epi32(_mm_loadu_si128((const __m128i *)(const void *)totals), sum));
}

#define MOST_ROWS_AT_ONCE 1
#include "usdot.h"

#endif
