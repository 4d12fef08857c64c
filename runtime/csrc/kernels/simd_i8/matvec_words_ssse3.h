/* The words of SSSE3 for matvec_lines.inc: maddubs.inc adds lines up in them,
 * matvec_words_scalar.h says what each of them does. */
#ifndef TRITPACK_MATVEC_WORDS_SSSE3_H
#define TRITPACK_MATVEC_WORDS_SSSE3_H

#include <tmmintrin.h>

#include "../common.h"

#define V __m128i
#define WORD 16
#define V_LOAD(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define V_SPLAT8 _mm_set1_epi8
#define V_SPLAT16 _mm_set1_epi16
#define V_AND _mm_and_si128
#define V_XOR _mm_xor_si128
#define V_SHR16 _mm_srli_epi16
#define V_ADD8 _mm_add_epi8
#define V_ADD16 _mm_add_epi16
#define V_ADD32 _mm_add_epi32
#define V_GT8 _mm_cmpgt_epi8
#define V_ABS8 _mm_abs_epi8
#define V_MADDUBS _mm_maddubs_epi16
#define V_MADD _mm_madd_epi16

TP_INLINE int32_t V_TOTAL(__m128i s) {
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

TP_INLINE void V_ADD_PAIRS(__m128i *sum, __m128i u, __m128i s) {
    *sum = _mm_add_epi16(*sum, _mm_maddubs_epi16(u, s));
}

TP_INLINE void V_TOTALS(const __m128i v[4], int32_t *out) {
    _mm_storeu_si128((__m128i *)(void *)out,
                     _mm_hadd_epi32(_mm_hadd_epi32(v[0], v[1]), _mm_hadd_epi32(v[2], v[3])));
}

TP_INLINE void V_ADD_QUADS(__m128i v, int32_t *totals) {
    _mm_storeu_si128((__m128i *)(void *)totals,
                     _mm_add_epi32(_mm_loadu_si128((const __m128i *)(const void *)totals), v));
}

#include "maddubs.inc"

#endif
