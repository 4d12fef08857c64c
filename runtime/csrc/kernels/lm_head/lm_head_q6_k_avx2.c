/* The output head of q6_k, for AVX2. */
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"

/* Eight lanes: 32 codes that share two scales, the ones of factors that pick says, against their
 * even and odd activations. */
TP_INLINE vf half_group(__m256i codes, const int16_t *q, const int32_t *bias, vf factors,
                        __m256i pick) {
    const __m256i even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff)),
                  odd = _mm256_srli_epi16(codes, 8);
    const __m256i v = _mm256_add_epi32(
        _mm256_loadu_si256((const __m256i *)bias),
        _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_loadu_si256((const __m256i *)q)),
                         _mm256_madd_epi16(odd, _mm256_loadu_si256((const __m256i *)(q + 32)))));
    return _mm256_cvtepi32_ps(v) * _mm256_permutevar8x32_ps(factors, pick);
}

void lm_head_q6_k_avx2(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                       int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    const __m256i pair = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0), nibble = _mm256_set1_epi8(15),
                  high = _mm256_set1_epi8(0x30);
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = row0; r < row1; r++) {
            const uint8_t *block = q6_k_row(w, r);
            const int16_t *q = x->q + t * x->padded;
            const int32_t *bias = x->bias + t * (x->padded / 4);
            lanes acc = lanes_splat(0.0f);
            for (int64_t b = 0; b < w->cols / 256; b++, block += Q6_K_BYTES) {
                stream_block_ahead(block, Q6_K_BYTES);
                const vf d =
                    vf_splat(_cvtsh_ss(tp_load_u16(block + Q6_K_D)) * x->step[t * x->blocks + b]);
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++, q += 128, bias += 32) {
                    const __m128i scales =
                        _mm_loadl_epi64((const __m128i *)(block + Q6_K_SCALES + 8 * h));
                    const vf factors = d * _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales));
                    const __m256i l0 = _mm256_loadu_si256((const __m256i *)(block + 64 * h));
                    const __m256i l1 = _mm256_loadu_si256((const __m256i *)(block + 64 * h + 32));
                    const __m256i qh =
                        _mm256_loadu_si256((const __m256i *)(block + Q6_K_QH + 32 * h));
                    const __m256i c0 =
                        _mm256_or_si256(_mm256_and_si256(l0, nibble),
                                        _mm256_and_si256(_mm256_slli_epi16(qh, 4), high));
                    const __m256i c1 =
                        _mm256_or_si256(_mm256_and_si256(l1, nibble),
                                        _mm256_and_si256(_mm256_slli_epi16(qh, 2), high));
                    const __m256i c2 =
                        _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(l0, 4), nibble),
                                        _mm256_and_si256(qh, high));
                    const __m256i c3 =
                        _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(l1, 4), nibble),
                                        _mm256_and_si256(_mm256_srli_epi16(qh, 2), high));
                    acc.v[0] = acc.v[0] + half_group(c0, q, bias, factors, pair);
                    acc.v[1] = acc.v[1] + half_group(c1, q + 16, bias + 8, factors,
                                                     _mm256_add_epi32(pair, _mm256_set1_epi32(2)));
                    acc.v[0] = acc.v[0] + half_group(c2, q + 64, bias + 16, factors,
                                                     _mm256_add_epi32(pair, _mm256_set1_epi32(4)));
                    acc.v[1] = acc.v[1] + half_group(c3, q + 80, bias + 24, factors,
                                                     _mm256_add_epi32(pair, _mm256_set1_epi32(6)));
                }
            }
            out[t * ld + r - row0] = lanes_tree(acc);
        }
}
