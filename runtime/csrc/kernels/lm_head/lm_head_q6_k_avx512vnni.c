/* The output head of q6_k, for AVX-512 VNNI. */
#include "../simd_i8/avx512vnni.h"
#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"
#include "lm_head_tokens.h"

enum { ROWS = 2, TOKENS = 16, GROUPS = 4 };

/* A block of a row: codes of 64 elements are split in even and odd ones, which is how acts lie. */
typedef struct block {
    __m512i even[GROUPS], odd[GROUPS];
    __m512 scales; /* of the sixteen sub-blocks */
    float d;
} block;

/* Low 4 bits of `low`, the next two of `high`, less 32. */
TP_INLINE void join(__m512i low, __m512i high, __m512i *even, __m512i *odd) {
    const __m512i six = _mm512_set1_epi16(0x3f), half = _mm512_set1_epi16(32);
    const __m512i codes = _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), low, high, 0xca);
    *even = _mm512_sub_epi16(_mm512_and_si512(codes, six), half);
    *odd = _mm512_sub_epi16(_mm512_and_si512(_mm512_srli_epi16(codes, 8), six), half);
}

TP_INLINE block block_at(const uint8_t *from) {
    const __m512i left = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2),
                                            1); /* fields 0 and 1 of qh to bits 5-4 */
    const __m512i right =
        _mm512_inserti64x4(_mm512_set1_epi16(0), _mm256_set1_epi16(2), 1); /* fields 2 and 3 */
    block b;
    stream_block_ahead(from, Q6_K_BYTES);
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m512i ql = _mm512_loadu_si512(from + 64 * h);
        /* Blocks of 210 bytes lie across lines, and the compiler would load this twice. */
        __asm__("" : "+v"(ql));
        const __m512i qh =
            _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(from + Q6_K_QH + 32 * h)));
        join(ql, _mm512_sllv_epi16(qh, left), &b.even[2 * h], &b.odd[2 * h]);
        join(_mm512_srli_epi16(ql, 4), _mm512_srlv_epi16(qh, right), &b.even[2 * h + 1],
             &b.odd[2 * h + 1]);
    }
    b.d = _cvtsh_ss(tp_load_u16(from + Q6_K_D));
    b.scales = _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(from + Q6_K_SCALES))));
    return b;
}

/* Adds a block to a token's lanes of each row. */
TP_INLINE void add_block(const block *b, const int rows, const int16_t *q, float step,
                         __m512 *acc) {
    const __m512i quarter = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    __m512 factors[ROWS], sum[ROWS];
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        factors[r] = _mm512_set1_ps(b[r].d * step) * b[r].scales;
        sum[r] = acc[r];
    }
#pragma GCC unroll 4
    for (int g = 0; g < GROUPS; g++) {
        const __m512i pick = _mm512_add_epi32(quarter, _mm512_set1_epi32(4 * g));
        const __m512i even = _mm512_loadu_si512(q + 64 * g),
                      odd = _mm512_loadu_si512(q + 64 * g + 32);
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            __m512i v = _mm512_madd_epi16(b[r].even[g], even);
            dot_s16_s16(&v, b[r].odd[g], odd);
            sum[r] = sum[r] + _mm512_cvtepi32_ps(v) * _mm512_permutexvar_ps(pick, factors[r]);
            HEAD_TOKEN_DONE(sum[r], "v");
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) acc[r] = sum[r];
}

TP_INLINE void rows_times(const uint8_t *row, int64_t cols, const int rows,
                          const tp_lm_head_acts *x, int64_t t0, int64_t tokens, float *out,
                          int64_t ld) {
    const int64_t blocks = cols / 256;
    __m512 acc[TOKENS][ROWS];
    for (int64_t t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++) acc[t][r] = _mm512_setzero_ps();
    for (int64_t i = 0; i < blocks; i++) {
        block b[ROWS];
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) b[r] = block_at(row + (r * blocks + i) * Q6_K_BYTES);
        const int16_t *q = x->q + t0 * x->padded + 256 * i;
        const float *step = x->step + t0 * x->blocks + i;
        for (int64_t t = 0; t < tokens; t++, q += x->padded, step += x->blocks)
            add_block(b, rows, q, *step, acc[t]);
    }
    for (int64_t t = 0; t < tokens; t++)
        for (int r = 0; r < rows; r++) out[(t0 + t) * ld + r] = lanes_tree((lanes){{acc[t][r]}});
}

void lm_head_q6_k_avx512vnni(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                             int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t t = 0, tokens; t < n; t += tokens) {
        tokens = head_tile(n - t, TOKENS);
        int64_t r = row0;
        if (tokens == 1)
            for (; r < row1; r++)
                rows_times(q6_k_row(w, r), w->cols, 1, x, t, 1, out + r - row0, ld);
        for (; r + ROWS <= row1; r += ROWS)
            rows_times(q6_k_row(w, r), w->cols, ROWS, x, t, tokens, out + r - row0, ld);
        for (; r < row1; r++)
            rows_times(q6_k_row(w, r), w->cols, 1, x, t, tokens, out + r - row0, ld);
    }
}
