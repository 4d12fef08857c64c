/* The output head of q4_k, for AVX-512 VNNI. */
#include "../simd_i8/avx512vnni.h"
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"
#include "lm_head_tokens.h"

/* 64 elements at a time: the low nibbles of 32 bytes and their high ones are two sub-blocks,
 * eight lanes each. */
TP_INLINE void row_times(const uint8_t *block, int64_t cols, const tp_lm_head_acts *x, int64_t t0,
                         const int tokens, float *out, int64_t ld) {
    const __m512i shift = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1),
                  nibble = _mm512_set1_epi16(15);
    const __m512i pair = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(1), 1);
    const int16_t *q[6];
    const int32_t *bias[6];
    __m512 acc[6], f[6], g[6];
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) {
        q[t] = x->q + (t0 + t) * x->padded;
        bias[t] = x->bias + (t0 + t) * (x->padded / 4);
        acc[t] = _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < cols / 256; b++, block += Q4_K_BYTES) {
        stream_block_ahead(block, Q4_K_BYTES);
        uint64_t small[2]; /* in registers: what was just stored in pieces is slow to load whole */
        q4_k_scales(block, (uint8_t *)&small[0], (uint8_t *)&small[1]);
        const __m512 sixes = _mm512_cvtepi32_ps(
            _mm512_cvtepu8_epi32(_mm_set_epi64x((int64_t)small[1], (int64_t)small[0])));
        const float d = _cvtsh_ss(tp_load_u16(block)),
                    dmin = _cvtsh_ss(tp_load_u16(block + Q4_K_DMIN));
#pragma GCC unroll 6
        for (int t = 0; t < tokens; t++) {
            const float step = x->step[(t0 + t) * x->blocks + b];
            f[t] = _mm512_set1_ps(d * step) * sixes; /* lanes 0 .. 7: the scales */
            g[t] = _mm512_set1_ps(dmin * step) * sixes *
                   _mm512_set1_ps(0.03125f); /* lanes 8 .. 15: the offsets */
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const int64_t at = 256 * b + 64 * j;
            const __m512i codes =
                _mm512_srlv_epi16(_mm512_broadcast_i64x4(_mm256_loadu_si256(
                                      (const __m256i *)(block + Q4_K_CODES + 32 * j))),
                                  shift);
            const __m512i even = _mm512_and_si512(codes, nibble),
                          odd = _mm512_and_si512(_mm512_srli_epi16(codes, 8), nibble);
            const __m512i scale_of = _mm512_add_epi32(pair, _mm512_set1_epi32(2 * j)),
                          offset_of = _mm512_add_epi32(pair, _mm512_set1_epi32(2 * j + 8));
#pragma GCC unroll 6
            for (int t = 0; t < tokens; t++) {
                __m512i v = _mm512_madd_epi16(even, _mm512_loadu_si512(q[t] + at));
                dot_s16_s16(&v, odd, _mm512_loadu_si512(q[t] + at + 32));
                acc[t] = acc[t] + _mm512_cvtepi32_ps(v) * _mm512_permutexvar_ps(scale_of, f[t]);
                acc[t] = acc[t] + _mm512_cvtepi32_ps(_mm512_loadu_si512(bias[t] + at / 4)) *
                                      _mm512_permutexvar_ps(offset_of, g[t]);
                HEAD_TOKEN_DONE(acc[t], "v");
            }
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) out[(t0 + t) * ld] = lanes_tree((lanes){{acc[t]}});
}

void lm_head_q4_k_avx512vnni(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                             int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    HEAD_BY_TOKENS(6, row_times, q4_k_row)
}
