#include "../simd_i8/matvec_words_avx512vnni.h"

#include "matvec_lines.inc"

/* The product of simd_i8/usdot.inc, no digit isolated, for the eight rows of a group at once:
 * they share what is loaded of the activations, and their lines are one sequential stream. */
enum { LINES = 1024 };
_Static_assert(3LL * 20 * 255 * 128 * LINES < INT32_MAX, "a lane would wrap");

/* Rows of a group, the same line of each. */
TP_INLINE void line(const uint8_t *codes, int64_t stride, __mmask64 bytes, const int8_t *q,
                    const int rows, __m512i *a, __m512i *b) {
    __m512i x[T158_ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        stream_ahead(codes + r * stride);
        x[r] = bytes == ~(__mmask64)0 ? _mm512_loadu_si512(codes + r * stride)
                                      : _mm512_maskz_loadu_epi8(bytes, codes + r * stride);
    }
#pragma GCC unroll 5
    for (int d = 0; d < T158_DIGITS; d++) {
        const __m512i s = _mm512_load_si512(q + T158_LINE * d);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            dot_u8_s8(&a[r], x[r], s);
            x[r] = thrice(x[r]);
            dot_u8_s8(&b[r], x[r], s);
        }
    }
}

/* Rows `first` .. of a group of `together`: out = their sums less `less`. */
TP_INLINE void group_rows(const uint8_t *group, int64_t together, int64_t first, int64_t cols,
                          const int8_t *q, const int rows, int32_t less, int32_t *out) {
    const int64_t whole = cols / T158_COLS;
    const int last = t158_last_bytes(cols);
    __m512i total[T158_ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) total[r] = _mm512_setzero_si512();
    for (int64_t l = 0; l * T158_COLS < cols;) {
        __m512i a[T158_ROWS], b[T158_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) a[r] = b[r] = _mm512_setzero_si512();
        const int64_t stop = l + LINES < whole ? l + LINES : whole;
        for (; l < stop; l++, q += T158_COLS)
            line(group + (l * together + first) * T158_LINE, T158_LINE, ~(__mmask64)0, q, rows, a,
                 b);
        if (l == whole && last)
            line(group + l * together * T158_LINE + first * last, last,
                 ~(__mmask64)0 >> (64 - last), q, rows, a, b);
        if (l == whole) l++;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const __m512i three_a = _mm512_add_epi32(_mm512_add_epi32(a[r], a[r]), a[r]);
            total[r] =
                _mm512_add_epi32(total[r], _mm512_srai_epi32(_mm512_sub_epi32(three_a, b[r]), 8));
        }
    }
    if (rows == T158_ROWS) {
        __m256i half[T158_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < T158_ROWS; r++)
            half[r] = _mm256_add_epi32(_mm512_castsi512_si256(total[r]),
                                       _mm512_extracti64x4_epi64(total[r], 1));
        _mm256_storeu_si256((__m256i *)out,
                            _mm256_sub_epi32(sums_of_8(half), _mm256_set1_epi32(less)));
        return;
    }
    for (int r = 0; r < rows; r++) out[r] = _mm512_reduce_add_epi32(total[r]) - less;
}

static void one_token(const tp_tensor *w, const int8_t *acts, int32_t less, int64_t row0,
                      int64_t row1, int32_t *out) {
    for (int64_t r = row0; r < row1;) {
        const t158_place place = t158_row(w->rows, w->cols, r);
        const uint8_t *group = (const uint8_t *)w->data + place.start;
        if (place.in_group == 0 && place.group == T158_ROWS && r + T158_ROWS <= row1) {
            group_rows(group, T158_ROWS, 0, w->cols, acts, T158_ROWS, less, out + r - row0);
            r += T158_ROWS;
        } else {
            group_rows(group, place.group, place.in_group, w->cols, acts, 1, less, out + r - row0);
            r++;
        }
    }
}

void matvec_t158_avx512vnni(const tp_tensor *w, const void *acts, int64_t step,
                            const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1,
                            int32_t *out, int64_t ld) {
    assert(0 <= row0 && row1 <= w->rows);
    if (n > 1) t158_by_tokens(w, acts, step, sum_q, n, row0, row1, out, ld);
    else if (n == 1) one_token(w, acts, sum_q[0], row0, row1, out);
}
