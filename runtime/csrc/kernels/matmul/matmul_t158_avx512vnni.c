/* The product of many tokens by T158, for AVX-512 VNNI. */
#include "matmul_512.h"

#include "../t158.h"

/* As in I2_S packed dwords are transposed first: one transpose gives 16 x 320 codes. */
static void panel_t158(const tp_tensor *w, int64_t cols, int64_t row, int rows, uint8_t *panel) {
    const __m512i one = _mm512_set1_epi8(1), single = _mm512_set1_epi8(86),
                  twice = _mm512_set1_epi8((char)171); /* trits.h */
    for (int half = 0; half < 2 && 16 * half < rows; half++) {
        t158_place places[16];
        const int here = rows - 16 * half < 16 ? rows - 16 * half : 16;
        for (int i = 0; i < here; i++) places[i] = t158_row(w->rows, w->cols, row + 16 * half + i);
        for (int64_t c = 0; c < w->cols; c += T158_COLS) {
            const int bytes = w->cols - c < T158_COLS ? t158_last_bytes(w->cols) : T158_LINE;
            const __mmask64 line = ~UINT64_C(0) >> (64 - bytes);
            __m512i v[16];
            for (int i = 0; i < 16; i++)
                v[i] = i < here
                           ? _mm512_maskz_loadu_epi8(line, (const uint8_t *)w->data +
                                                               t158_line_at(places[i], c, bytes))
                           : _mm512_setzero_si512();
            transpose16(v);
            for (int p = 0; p < bytes / 4; p++) { /* columns c + bytes d + 4 p .. + 3 */
                __m512i x = v[p];
                for (int64_t d = 0, column = c + 4 * p; d < T158_DIGITS && column < cols;
                     d++, column += bytes) {
                    const __m512i digit =
                        _mm512_maskz_mov_epi8(_mm512_cmpge_epu8_mask(x, single), one);
                    _mm512_store_si512(
                        panel + column * 32 + 64 * half,
                        _mm512_mask_add_epi8(digit, _mm512_cmpge_epu8_mask(x, twice), digit, one));
                    x = thrice(x);
                }
            }
        }
    }
}

void matmul_t158_avx512vnni(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n,
                            int64_t row0, int64_t row1, int32_t *out, int64_t ld, void *scratch,
                            tp_prefetch next) {
    matmul_panels(w, (w->cols + 127) / 128 * 128, acts, sum_q, n, row0, row1, out, ld, scratch,
                  next, panel_t158);
}
