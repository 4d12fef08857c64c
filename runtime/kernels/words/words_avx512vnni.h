#ifndef TRITPACK_WORDS_AVX512VNNI_H
#define TRITPACK_WORDS_AVX512VNNI_H

#include "../avx512vnni.h"

#define V __m512i
#define WORD 64
#define V_ZERO _mm512_setzero_si512()
#define V_LOAD(p) _mm512_loadu_si512(p)
#define V_SPLAT8(x) _mm512_set1_epi8((char)(x))
#define V_AND _mm512_and_si512
#define V_ADD8 _mm512_add_epi8
#define V_ADD32 _mm512_add_epi32
#define V_SUB32 _mm512_sub_epi32
#define V_SAR32 _mm512_srai_epi32
#define V_DOT dot_u8_s8
#define V_TOTAL _mm512_reduce_add_epi32

#include "usdot.h"

#endif
