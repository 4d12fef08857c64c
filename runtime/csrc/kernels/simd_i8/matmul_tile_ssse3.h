/* What matmul_128.inc multiplies with. */
#ifndef TRITPACK_MATMUL_TILE_SSSE3_H
#define TRITPACK_MATMUL_TILE_SSSE3_H

#include <tmmintrin.h>

#include "../common.h"

#define WORD __m128i
TP_INLINE WORD word_zero(void) { return _mm_setzero_si128(); }
TP_INLINE WORD word_load(const void *p) { return _mm_loadu_si128(p); }
TP_INLINE void word_store(int32_t *p, WORD v) { _mm_storeu_si128((__m128i *)(void *)p, v); }
TP_INLINE WORD word_four(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm_set1_epi32(four);
}
TP_INLINE WORD word_dot(WORD acc, WORD codes, WORD q) {
    return _mm_add_epi32(acc, _mm_madd_epi16(_mm_maddubs_epi16(codes, q), _mm_set1_epi16(1)));
}

#endif
