/* The output head of q8_0, for AVX2. */
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"
#include "lm_head_tokens.h"

/* Adds a block of 32, whose activations begin at `at`, to eight lanes of each token. */
TP_INLINE void block_times(const uint8_t *block, const int16_t *const *q, int64_t at,
                           const float *step, const int tokens, lanes *acc, const int half) {
    const __m256i w = _mm256_loadu_si256((const __m256i *)(block + 2));
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8),
                  odd = _mm256_srai_epi16(w, 8);
    const float d = _cvtsh_ss(tp_load_u16(block));
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) {
        const int16_t *const a = q[t] + at;
        const __m256i v =
            _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_loadu_si256((const __m256i *)a)),
                             _mm256_madd_epi16(odd, _mm256_loadu_si256((const __m256i *)(a + 32))));
        acc[t].v[half] = acc[t].v[half] + _mm256_cvtepi32_ps(v) * vf_splat(d * step[t]);
    }
}

TP_INLINE void row_times(const uint8_t *block, int64_t cols, const tp_lm_head_acts *x, int64_t t0,
                         const int tokens, float *out, int64_t ld) {
    const int16_t *q[4];
    float step[4];
    lanes acc[4];
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) {
        q[t] = x->q + (t0 + t) * x->padded;
        acc[t] = lanes_splat(0.0f);
    }
    for (int64_t at = 0; at < cols; at += 64, block += 2 * Q8_0_BYTES) {
        stream_block_ahead(block, 2 * Q8_0_BYTES);
#pragma GCC unroll 4
        for (int t = 0; t < tokens; t++) step[t] = x->step[(t0 + t) * x->blocks + at / 256];
        block_times(block, q, at, step, tokens, acc, 0);
        if (at + 32 < cols) block_times(block + Q8_0_BYTES, q, at + 16, step, tokens, acc, 1);
    }
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) out[(t0 + t) * ld] = lanes_tree(acc[t]);
}

void lm_head_q8_0_avx2(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                       int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 32 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    HEAD_BY_TOKENS(4, row_times, q8_0_row)
}
