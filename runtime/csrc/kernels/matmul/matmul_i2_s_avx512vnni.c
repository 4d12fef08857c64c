/* The product of many tokens by I2_S, for AVX-512 VNNI. */
#include "matmul_512.h"

#include "../i2_s.h"

/* Packed dwords are transposed first, fields are taken apart after: one transpose gives 16 x 256
 * codes. */
static void panel_i2_s(const tp_tensor *w, int64_t cols, int64_t row, int rows, uint8_t *panel) {
    const __m512i three = _mm512_set1_epi8(3);
    for (int64_t byte = 0; byte < cols / 4; byte += 64) {
        const int blocks = cols / 4 - byte >= 64 ? 2 : 1;
        for (int half = 0; half < 2; half++) {
            __m512i v[16];
            for (int i = 0; i < 16; i++) {
                const int r = 16 * half + i;
                if (r < rows) /* 16 streams: more than the CPU follows by itself */
                    __builtin_prefetch(
                        (const void *)((uintptr_t)i2_s_row(w, row + r) + (uintptr_t)byte + 256), 0,
                        3);
                v[i] = r < rows ? _mm512_maskz_loadu_epi32(blocks == 2 ? 0xffff : 0xff,
                                                           i2_s_row(w, row + r) + byte)
                                : _mm512_setzero_si512();
            }
            transpose16(v);
            for (int b = 0; b < blocks; b++)
                for (int p = 0; p < 8; p++) { /* columns 4 byte + 128 b + 32 g + 4 p .. + 3 */
                    uint8_t *to = panel + (byte + 32 * b + p) * 128 + 64 * half;
                    const __m512i x = v[8 * b + p];
                    _mm512_store_si512(to, _mm512_and_si512(_mm512_srli_epi16(x, 6), three));
                    _mm512_store_si512(to + 8 * 128,
                                       _mm512_and_si512(_mm512_srli_epi16(x, 4), three));
                    _mm512_store_si512(to + 16 * 128,
                                       _mm512_and_si512(_mm512_srli_epi16(x, 2), three));
                    _mm512_store_si512(to + 24 * 128, _mm512_and_si512(x, three));
                }
        }
    }
}

void matmul_i2_s_avx512vnni(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n,
                            int64_t row0, int64_t row1, int32_t *out, int64_t ld, void *scratch,
                            tp_prefetch next) {
    assert(w->cols % 128 == 0);
    matmul_panels(w, w->cols, acts, sum_q, n, row0, row1, out, ld, scratch, next, panel_i2_s);
}
