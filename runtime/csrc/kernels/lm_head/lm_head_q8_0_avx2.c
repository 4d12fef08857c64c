/* The output head of q8_0, for AVX2. */
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"

/* Lanes 8 i .. 8 i + 7 of group `at` for one block of 32. */
TP_INLINE vf block_times(const uint8_t *block, const int16_t *q, float step) {
    const __m256i w = _mm256_loadu_si256((const __m256i *)(block + 2));
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8),
                  odd = _mm256_srai_epi16(w, 8);
    const __m256i v =
        _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_loadu_si256((const __m256i *)q)),
                         _mm256_madd_epi16(odd, _mm256_loadu_si256((const __m256i *)(q + 32))));
    return _mm256_cvtepi32_ps(v) * vf_splat(_cvtsh_ss(tp_load_u16(block)) * step);
}

void lm_head_q8_0_avx2(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                       int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 32 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = row0; r < row1; r++) {
            const uint8_t *block = q8_0_row(w, r);
            const int16_t *q = x->q + t * x->padded;
            const float *step = x->step + t * x->blocks;
            lanes acc = lanes_splat(0.0f);
            int64_t at = 0;
            for (; at + 64 <= w->cols; at += 64, block += 2 * Q8_0_BYTES) {
                stream_block_ahead(block, 2 * Q8_0_BYTES);
                acc.v[0] = acc.v[0] + block_times(block, q + at, step[at / 256]);
                acc.v[1] = acc.v[1] + block_times(block + Q8_0_BYTES, q + at + 16, step[at / 256]);
            }
            if (at < w->cols) acc.v[0] = acc.v[0] + block_times(block, q + at, step[at / 256]);
            out[t * ld + r - row0] = lanes_tree(acc);
        }
}
