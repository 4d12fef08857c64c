/* The output head of q4_k, for AVX2. */
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"
#include "lm_head_tokens.h"

/* Adds sub-block j, 32 codes against their even and odd activations, to eight lanes of each token.
 */
TP_INLINE void sub_block(__m256i codes, const int16_t *const *q, const int32_t *const *bias,
                         int64_t at, const vf *f, const vf *g, int j, const int half,
                         const int tokens, lanes *acc) {
    const __m256i even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff)),
                  odd = _mm256_srli_epi16(codes, 8), pick = _mm256_set1_epi32(j);
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) {
        const int16_t *const a = q[t] + at + 16 * half;
        const __m256i v =
            _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_loadu_si256((const __m256i *)a)),
                             _mm256_madd_epi16(odd, _mm256_loadu_si256((const __m256i *)(a + 32))));
        const __m256i offset = _mm256_loadu_si256((const __m256i *)(bias[t] + at / 4 + 8 * half));
        vf *const to = &acc[t].v[half];
        *to = *to + _mm256_cvtepi32_ps(v) * _mm256_permutevar8x32_ps(f[t], pick);
        *to = *to + _mm256_cvtepi32_ps(offset) * _mm256_permutevar8x32_ps(g[t], pick);
        HEAD_TOKEN_DONE(*to, "x");
    }
}

TP_INLINE vf sixes(uint64_t eight) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)eight)));
}

TP_INLINE void row_times(const uint8_t *block, int64_t cols, const tp_lm_head_acts *x, int64_t t0,
                         const int tokens, float *out, int64_t ld) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const int16_t *q[4];
    const int32_t *bias[4];
    lanes acc[4];
    vf f[4], g[4];
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) {
        q[t] = x->q + (t0 + t) * x->padded;
        bias[t] = x->bias + (t0 + t) * (x->padded / 4);
        acc[t] = lanes_splat(0.0f);
    }
    for (int64_t b = 0; b < cols / 256; b++, block += Q4_K_BYTES) {
        stream_block_ahead(block, Q4_K_BYTES);
        uint64_t scales, offsets;
        q4_k_scales(block, (uint8_t *)&scales, (uint8_t *)&offsets);
        const vf of_codes = sixes(scales), of_bias = sixes(offsets);
        const float d = _cvtsh_ss(tp_load_u16(block)),
                    dmin = _cvtsh_ss(tp_load_u16(block + Q4_K_DMIN));
#pragma GCC unroll 4
        for (int t = 0; t < tokens; t++) {
            const float step = x->step[(t0 + t) * x->blocks + b];
            f[t] = vf_splat(d * step) * of_codes;
            g[t] = vf_splat(dmin * step) * of_bias * vf_splat(0.03125f);
        }
        for (int j = 0; j < 8; j += 2) {
            const int64_t at = 256 * b + 32 * j;
            const __m256i both = _mm256_loadu_si256((const __m256i *)(block + Q4_K_CODES + 16 * j));
            sub_block(_mm256_and_si256(both, nibble), q, bias, at, f, g, j, 0, tokens, acc);
            sub_block(_mm256_and_si256(_mm256_srli_epi16(both, 4), nibble), q, bias, at, f, g,
                      j + 1, 1, tokens, acc);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) out[(t0 + t) * ld] = lanes_tree(acc[t]);
}

void lm_head_q4_k_avx2(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                       int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    HEAD_BY_TOKENS(4, row_times, q4_k_row)
}
