/* The words of AVX-512 VNNI for matvec_lines.inc: usdot.inc adds lines up in them,
 * matvec_words_scalar.h says what each of them does. */
#ifndef TRITPACK_MATVEC_WORDS_AVX512VNNI_H
#define TRITPACK_MATVEC_WORDS_AVX512VNNI_H

#include "avx512vnni.h"

#define V __m512i
#define WORD 64
#define V_ZERO _mm512_setzero_si512()
#define V_LOAD(p) _mm512_loadu_si512(p)
#define V_SPLAT8(x) _mm512_set1_epi8((char)(x))
#define V_AND _mm512_and_si512
#define V_THRICE8 thrice
#define V_ADD32 _mm512_add_epi32
#define V_SUB32 _mm512_sub_epi32
#define V_SAR32 _mm512_srai_epi32
#define V_SHR16 _mm512_srli_epi16
#define V_SUB8 _mm512_sub_epi8
#define V_MAX8 _mm512_max_epu8
#define V_AVG8 _mm512_avg_epu8
#define V_ANDNOT _mm512_andnot_si512
#define V_DOT dot_u8_s8
#define V_TOTAL _mm512_reduce_add_epi32

TP_INLINE void V_TOTALS(const __m512i v[4], int32_t *out) {
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]),
                                       _mm512_unpackhi_epi32(v[0], v[1])),
                  b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]),
                                       _mm512_unpackhi_epi32(v[2], v[3]));
    const __m512i s = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    const __m256i half =
        _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
    _mm_storeu_si128((__m128i *)(void *)out, _mm_add_epi32(_mm256_castsi256_si128(half),
                                                           _mm256_extracti128_si256(half, 1)));
}

TP_INLINE void V_ADD_QUADS(__m512i v, int32_t *totals) {
    const __m256i half =
        _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    const __m128i sum =
        _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    _mm_storeu_si128((__m128i *)(void *)totals,
                     _mm_add_epi32(_mm_loadu_si128((const __m128i *)(const void *)totals), sum));
}

/* 8 words of state and 16 sums stay in registers, and one load of activations serves 8 rows. */
#define MOST_ROWS_AT_ONCE 8
/* 16 sums, as many as hide the latency of a dot product, and the codes of a field. */
#define TOKENS_AT_ONCE 8
#define TILE_ROWS(tokens) ((tokens) <= 4 ? 4 : 2)

#include "usdot.inc"

/* trits of several rows, row_bytes apart, 64 bytes each. */
TP_INLINE void trits_of_rows(sums *s, const uint8_t *p, int64_t row_bytes, const int rows,
                             const int8_t *q) {
    __m512i x[MOST_ROWS_AT_ONCE];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) x[r] = _mm512_loadu_si512(p + r * row_bytes);
#pragma GCC unroll 5
    for (int f = 0; f < 5; f++) {
        const __m512i a = _mm512_load_si512(q + LINE * f);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            dot_u8_s8(&s[r].v[0], x[r], a);
            x[r] = thrice(x[r]);
            dot_u8_s8(&s[r].u[0], x[r], a);
        }
    }
}

#endif
