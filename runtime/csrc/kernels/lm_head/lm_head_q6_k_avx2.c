/* The output head of q6_k, for AVX2. */
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"
#include "lm_head_tokens.h"

/* Adds 32 codes that share two scales, the ones of factors that pick says, to eight lanes of each
 * token: the even and the odd ones, which is how acts lie. */
TP_INLINE void half_group(__m256i codes, const int16_t *const *q, int64_t at, const vf *factors,
                          __m256i pick, const int tokens, lanes *acc, const int half) {
    const __m256i offset = _mm256_set1_epi16(32);
    const __m256i even = _mm256_sub_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(0xff)), offset);
    const __m256i odd = _mm256_sub_epi16(_mm256_srli_epi16(codes, 8), offset);
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) {
        const int16_t *const a = q[t] + at;
        const __m256i v =
            _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_loadu_si256((const __m256i *)a)),
                             _mm256_madd_epi16(odd, _mm256_loadu_si256((const __m256i *)(a + 32))));
        acc[t].v[half] =
            acc[t].v[half] + _mm256_cvtepi32_ps(v) * _mm256_permutevar8x32_ps(factors[t], pick);
        HEAD_TOKEN_DONE(acc[t].v[half], "x");
    }
}

TP_INLINE void row_times(const uint8_t *block, int64_t cols, const tp_lm_head_acts *x, int64_t t0,
                         const int tokens, float *out, int64_t ld) {
    const __m256i pair = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0), nibble = _mm256_set1_epi8(15),
                  high = _mm256_set1_epi8(0x30);
    const int16_t *q[4];
    lanes acc[4];
    vf d[4], factors[4];
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) {
        q[t] = x->q + (t0 + t) * x->padded;
        acc[t] = lanes_splat(0.0f);
    }
    for (int64_t b = 0; b < cols / 256; b++, block += Q6_K_BYTES) {
        stream_block_ahead(block, Q6_K_BYTES);
#pragma GCC unroll 4
        for (int t = 0; t < tokens; t++)
            d[t] = vf_splat(_cvtsh_ss(tp_load_u16(block + Q6_K_D)) *
                            x->step[(t0 + t) * x->blocks + b]);
        for (int h = 0; h < 2; h++) {
            const int64_t at = 256 * b + 128 * h;
            const vf scales = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(
                _mm_loadl_epi64((const __m128i *)(block + Q6_K_SCALES + 8 * h))));
#pragma GCC unroll 4
            for (int t = 0; t < tokens; t++) factors[t] = d[t] * scales;
            const __m256i l0 = _mm256_loadu_si256((const __m256i *)(block + 64 * h));
            const __m256i l1 = _mm256_loadu_si256((const __m256i *)(block + 64 * h + 32));
            const __m256i qh = _mm256_loadu_si256((const __m256i *)(block + Q6_K_QH + 32 * h));
            const __m256i c0 = _mm256_or_si256(_mm256_and_si256(l0, nibble),
                                               _mm256_and_si256(_mm256_slli_epi16(qh, 4), high));
            half_group(c0, q, at, factors, pair, tokens, acc, 0);
            const __m256i c1 = _mm256_or_si256(_mm256_and_si256(l1, nibble),
                                               _mm256_and_si256(_mm256_slli_epi16(qh, 2), high));
            half_group(c1, q, at + 16, factors, _mm256_add_epi32(pair, _mm256_set1_epi32(2)),
                       tokens, acc, 1);
            const __m256i c2 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(l0, 4), nibble),
                                               _mm256_and_si256(qh, high));
            half_group(c2, q, at + 64, factors, _mm256_add_epi32(pair, _mm256_set1_epi32(4)),
                       tokens, acc, 0);
            const __m256i c3 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(l1, 4), nibble),
                                               _mm256_and_si256(_mm256_srli_epi16(qh, 2), high));
            half_group(c3, q, at + 80, factors, _mm256_add_epi32(pair, _mm256_set1_epi32(6)),
                       tokens, acc, 1);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) out[(t0 + t) * ld] = lanes_tree(acc[t]);
}

void lm_head_q6_k_avx2(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                       int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    HEAD_BY_TOKENS(4, row_times, q6_k_row)
}
