/* The product of many tokens by T158, for AVX-512 VNNI. */
#include "matmul_512.h"

#include "../t158.h"

/* The most significant digit of each byte of w = 256 - x, by the two averages of usdot.inc. */
TP_INLINE __m512i top_digit(__m512i w) {
    const __m512i a = _mm512_avg_epu8(w, _mm512_avg_epu8(w, _mm512_set1_epi8((char)252)));
    return _mm512_andnot_si512(_mm512_srli_epi16(a, 6), _mm512_set1_epi8(3));
}

/* A line of up to sixteen rows, `bytes` of each, which begins at column c, to the panel. Without
 * its columns from `cols` on, if there may be some: last. As in I2_S packed dwords are transposed
 * first: one transpose gives 16 x 320 codes. */
TP_INLINE void panel_line(const uint8_t *data, const t158_place *rows, int count, const int bytes,
                          int64_t c, int64_t cols, const int last, uint8_t *panel) {
    const __mmask64 line = ~UINT64_C(0) >> (64 - bytes);
    __m512i v[16];
    for (int i = 0; i < 16; i++) {
        const uint8_t *from = data;
        if (i < count) from += t158_line_at(rows[i], c, bytes);
        __asm__("" : "+r"(from)); /* gcc 12 makes vectors of the addresses, and reads them again */
        v[i] = i < count ? _mm512_maskz_loadu_epi8(line, from) : _mm512_setzero_si512();
    }
    transpose16(v);
#pragma GCC unroll 16
    for (int p = 0; p < bytes / 4; p++) { /* columns c + bytes d + 4 p .. + 3 */
        __m512i x =
            _mm512_sub_epi8(_mm512_setzero_si512(), _mm512_max_epu8(v[p], _mm512_set1_epi8(1)));
#pragma GCC unroll 5
        for (int d = 0; d < T158_DIGITS; d++) {
            const int64_t column = c + 4 * p + bytes * d;
            if (!last || column < cols) _mm512_store_si512(panel + column * 32, top_digit(x));
            x = thrice(x);
        }
    }
}

static void panel_t158(const tp_tensor *w, int64_t cols, int64_t row, int rows, uint8_t *panel) {
    for (int half = 0; half < 2 && 16 * half < rows; half++, panel += 64) {
        t158_place places[16];
        const int here = rows - 16 * half < 16 ? rows - 16 * half : 16;
        for (int i = 0; i < here; i++) places[i] = t158_row(w->rows, w->cols, row + 16 * half + i);
        int64_t c = 0;
        for (; c + T158_COLS <= w->cols; c += T158_COLS)
            panel_line(w->data, places, here, T158_LINE, c, cols, 0, panel);
        if (c < w->cols)
            panel_line(w->data, places, here, t158_last_bytes(w->cols), c, cols, 1, panel);
    }
}

void matmul_t158_avx512vnni(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n,
                            int64_t row0, int64_t row1, int32_t *out, int64_t ld, void *scratch,
                            tp_prefetch next) {
    matmul_panels(w, (w->cols + 127) / 128 * 128, acts, sum_q, n, row0, row1, out, ld, scratch,
                  next, panel_t158);
}
