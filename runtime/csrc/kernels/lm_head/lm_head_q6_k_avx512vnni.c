/* The output head of q6_k, for AVX-512 VNNI. */
#include "../simd_i8/avx512vnni.h"
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"
#include "lm_head_tokens.h"

/* Adds a group of 64 elements to each token's lanes: codes are split in even and odd bytes,
 * which is how acts lie. factor: (16) scale * d * step of the block's sub-blocks; pick: which of
 * them each lane takes. */
TP_INLINE void group(__m512i codes, const int16_t *const *q, int64_t at, __m512i pick,
                     const __m512 *factor, const int tokens, __m512 *acc) {
    const __m512i six = _mm512_set1_epi16(0x3f), half = _mm512_set1_epi16(32);
    const __m512i even = _mm512_sub_epi16(_mm512_and_si512(codes, six), half);
    const __m512i odd = _mm512_sub_epi16(_mm512_and_si512(_mm512_srli_epi16(codes, 8), six), half);
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) {
        __m512i v = _mm512_madd_epi16(even, _mm512_loadu_si512(q[t] + at));
        dot_s16_s16(&v, odd, _mm512_loadu_si512(q[t] + at + 32));
        acc[t] = acc[t] + _mm512_cvtepi32_ps(v) * _mm512_permutexvar_ps(pick, factor[t]);
        HEAD_TOKEN_DONE(acc[t], "v");
    }
}

/* Low 4 bits of `low`, the others of `high`, in every byte. */
TP_INLINE __m512i join(__m512i low, __m512i high) {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), low, high, 0xca);
}

TP_INLINE void row_times(const uint8_t *block, int64_t cols, const tp_lm_head_acts *x, int64_t t0,
                         const int tokens, float *out, int64_t ld) {
    const __m512i left = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2),
                                            1); /* fields 0 and 1 of qh to bits 5-4 */
    const __m512i right =
        _mm512_inserti64x4(_mm512_set1_epi16(0), _mm256_set1_epi16(2), 1); /* fields 2 and 3 */
    const __m512i quarter = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const int16_t *q[6];
    __m512 acc[6], factor[6];
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) {
        q[t] = x->q + (t0 + t) * x->padded;
        acc[t] = _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < cols / 256; b++, block += Q6_K_BYTES) {
        stream_block_ahead(block, Q6_K_BYTES);
        const float d = _cvtsh_ss(tp_load_u16(block + Q6_K_D));
        const __m512 scales = _mm512_cvtepi32_ps(
            _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(block + Q6_K_SCALES))));
#pragma GCC unroll 6
        for (int t = 0; t < tokens; t++)
            factor[t] = _mm512_set1_ps(d * x->step[(t0 + t) * x->blocks + b]) * scales;
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const int64_t at = 256 * b + 128 * h;
            __m512i ql = _mm512_loadu_si512(block + 64 * h);
            /* Blocks of 210 bytes lie across lines, and the compiler would load this twice. */
            __asm__("" : "+v"(ql));
            const __m512i qh = _mm512_broadcast_i64x4(
                _mm256_loadu_si256((const __m256i *)(block + Q6_K_QH + 32 * h)));
            const __m512i pick = _mm512_add_epi32(quarter, _mm512_set1_epi32(8 * h));
            group(join(ql, _mm512_sllv_epi16(qh, left)), q, at, pick, factor, tokens, acc);
            group(join(_mm512_srli_epi16(ql, 4), _mm512_srlv_epi16(qh, right)), q, at + 64,
                  _mm512_add_epi32(pick, _mm512_set1_epi32(4)), factor, tokens, acc);
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < tokens; t++) out[(t0 + t) * ld] = lanes_tree((lanes){{acc[t]}});
}

void lm_head_q6_k_avx512vnni(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                             int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    HEAD_BY_TOKENS(6, row_times, q6_k_row)
}
