/* The words of AVX2 for matvec_lines.inc: maddubs.inc adds lines up in them,
 * matvec_words_scalar.h says what each of them does. */
#ifndef TRITPACK_MATVEC_WORDS_AVX2_H
#define TRITPACK_MATVEC_WORDS_AVX2_H

#include <immintrin.h>

#include "../common.h"

#define V __m256i
#define WORD 32
#define V_LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define V_SPLAT8 _mm256_set1_epi8
#define V_SPLAT16 _mm256_set1_epi16
#define V_AND _mm256_and_si256
#define V_XOR _mm256_xor_si256
#define V_SHR16 _mm256_srli_epi16
#define V_ADD8 _mm256_add_epi8
#define V_ADD16 _mm256_add_epi16
#define V_ADD32 _mm256_add_epi32
#define V_GT8 _mm256_cmpgt_epi8
#define V_ABS8 _mm256_abs_epi8
#define V_MADDUBS _mm256_maddubs_epi16
#define V_MADD _mm256_madd_epi16

/* Assembly, since gcc 12 moves every product before the additions and spills for it. */
TP_INLINE void V_ADD_PAIRS(__m256i *sum, __m256i u, __m256i s) {
    __m256i pairs;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
            : "+x"(*sum), "=&x"(pairs)
            : "x"(u),
#ifdef __clang__ /* which would copy to memory what may be there */
              "x"(s));
#else
              "xm"(s));
#endif
}

#include "totals256.h"
#include "maddubs.inc"

#endif
