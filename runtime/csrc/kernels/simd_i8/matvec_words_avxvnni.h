/* The words of AVX-VNNI for matvec_lines.inc: usdot.inc adds lines up in them,
 * matvec_words_scalar.h says what each of them does. */
#ifndef TRITPACK_MATVEC_WORDS_AVXVNNI_H
#define TRITPACK_MATVEC_WORDS_AVXVNNI_H

#include "avxvnni.h"

#define V __m256i
#define WORD 32
#define V_ZERO _mm256_setzero_si256()
#define V_LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define V_SPLAT8(x) _mm256_set1_epi8((char)(x))
#define V_AND _mm256_and_si256
#define V_ADD32 _mm256_add_epi32
#define V_SUB32 _mm256_sub_epi32
#define V_SAR32 _mm256_srai_epi32
#define V_SHR16 _mm256_srli_epi16
#define V_SUB8 _mm256_sub_epi8
#define V_MAX8 _mm256_max_epu8
#define V_AVG8 _mm256_avg_epu8
#define V_ANDNOT _mm256_andnot_si256
#define V_DOT dot256_u8_s8

/* As thrice of avx512vnni.h. */
TP_INLINE __m256i V_THRICE8(__m256i x) {
    x = _mm256_add_epi8(_mm256_add_epi8(x, x), x);
    __asm__("" : "+x"(x));
    return x;
}

#include "totals256.h"

#define MOST_ROWS_AT_ONCE 1
#define TOKENS_AT_ONCE 8
#define TILE_ROWS(tokens) ((tokens) <= 4 ? 2 : 1)
#include "usdot.inc"

#endif
