/* The output head of q8_0, for AVX-512 VNNI. */
#include "../simd_i8/avx512vnni.h"
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"
#include "lm_head_tokens.h"

TP_INLINE void group(__m512i w, __m512 d, const tp_lm_head_acts *x, int64_t t0, int64_t at,
                     const int tokens, __m512 *acc) {
    const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8),
                  odd = _mm512_srai_epi16(w, 8);
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) {
        const int16_t *q = x->q + (t0 + t) * x->padded + at;
        __m512i v = _mm512_madd_epi16(even, _mm512_loadu_si512(q));
        dot_s16_s16(&v, odd, _mm512_loadu_si512(q + 32));
        acc[t] = acc[t] + _mm512_cvtepi32_ps(v) *
                              (d * _mm512_set1_ps(x->step[(t0 + t) * x->blocks + at / 256]));
    }
}

TP_INLINE void row_times(const uint8_t *block, int64_t cols, const tp_lm_head_acts *x, int64_t t0,
                         const int tokens, float *out, int64_t ld) {
    __m512 acc[6];
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) acc[t] = _mm512_setzero_ps();
    int64_t at = 0;
    for (; at + 64 <= cols; at += 64, block += 2 * Q8_0_BYTES) {
        stream_block_ahead(block, 2 * Q8_0_BYTES);
        const __m256i lo = _mm256_loadu_si256((const __m256i *)(block + 2)),
                      hi = _mm256_loadu_si256((const __m256i *)(block + Q8_0_BYTES + 2));
        const __m256i d = _mm256_mask_set1_epi16(_mm256_set1_epi16((short)tp_load_u16(block)),
                                                 0xff00, (short)tp_load_u16(block + Q8_0_BYTES));
        group(_mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1), _mm512_cvtph_ps(d), x, t0, at,
              tokens, acc);
    }
    if (at < cols) {
        const __m256i d = _mm256_maskz_set1_epi16(0x00ff, (short)tp_load_u16(block));
        group(_mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)(block + 2))),
              _mm512_cvtph_ps(d), x, t0, at, tokens, acc);
    }
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) out[(t0 + t) * ld] = lanes_tree((lanes){{acc[t]}});
}

void lm_head_q8_0_avx512vnni(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                             int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 32 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    HEAD_BY_TOKENS(6, row_times, q8_0_row)
}
