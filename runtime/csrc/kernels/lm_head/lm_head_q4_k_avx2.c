/* The output head of q4_k, for AVX2. */
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"

/* Eight lanes: sub-block j of 32 codes against their even and odd activations. */
TP_INLINE vf sub_block(vf acc, __m256i codes, const int16_t *q, const int32_t *bias, vf factors,
                       vf offsets, int j) {
    const __m256i even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff)),
                  odd = _mm256_srli_epi16(codes, 8);
    const __m256i v =
        _mm256_add_epi32(_mm256_madd_epi16(even, _mm256_loadu_si256((const __m256i *)q)),
                         _mm256_madd_epi16(odd, _mm256_loadu_si256((const __m256i *)(q + 32))));
    acc = acc + _mm256_cvtepi32_ps(v) * _mm256_permutevar8x32_ps(factors, _mm256_set1_epi32(j));
    return acc + _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)bias)) *
                     _mm256_permutevar8x32_ps(offsets, _mm256_set1_epi32(j));
}

TP_INLINE vf sixes(uint64_t eight) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)eight)));
}

void lm_head_q4_k_avx2(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                       int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = row0; r < row1; r++) {
            const uint8_t *block = q4_k_row(w, r);
            const int16_t *q = x->q + t * x->padded;
            const int32_t *bias = x->bias + t * (x->padded / 4);
            lanes acc = lanes_splat(0.0f);
            for (int64_t b = 0; b < w->cols / 256; b++, block += Q4_K_BYTES) {
                stream_block_ahead(block, Q4_K_BYTES);
                const float step = x->step[t * x->blocks + b];
                const float d = _cvtsh_ss(tp_load_u16(block)) * step,
                            dmin = _cvtsh_ss(tp_load_u16(block + Q4_K_DMIN)) * step;
                uint64_t scales, offsets;
                q4_k_scales(block, (uint8_t *)&scales, (uint8_t *)&offsets);
                const vf f = vf_splat(d) * sixes(scales),
                         g = vf_splat(dmin) * sixes(offsets) * vf_splat(0.03125f);
#pragma GCC unroll 4
                for (int j = 0; j < 8; j += 2, q += 64, bias += 16) {
                    const __m256i both =
                        _mm256_loadu_si256((const __m256i *)(block + Q4_K_CODES + 16 * j));
                    acc.v[0] =
                        sub_block(acc.v[0], _mm256_and_si256(both, nibble), q, bias, f, g, j);
                    acc.v[1] =
                        sub_block(acc.v[1], _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble),
                                  q + 16, bias + 8, f, g, j + 1);
                }
            }
            out[t * ld + r - row0] = lanes_tree(acc);
        }
}
