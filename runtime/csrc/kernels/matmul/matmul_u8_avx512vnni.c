/* The product of many tokens by plain codes, for AVX-512 VNNI. */
#include "matmul_512.h"

#include "../u8.h"

static void panel_u8(const tp_tensor *w, int64_t cols, int64_t row, int rows, uint8_t *panel) {
    for (int64_t c = 0; c < cols; c += 64)
        for (int half = 0; half < 2; half++) {
            __m512i v[16];
            for (int i = 0; i < 16; i++) {
                const int r = 16 * half + i;
                v[i] =
                    r < rows ? _mm512_loadu_si512(u8_row(w, row + r) + c) : _mm512_setzero_si512();
            }
            transpose16(v);
            for (int p = 0; p < 16; p++)
                _mm512_store_si512(panel + (c / 4 + p) * 128 + 64 * half, v[p]);
        }
}

void matmul_u8_avx512vnni(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n,
                          int64_t row0, int64_t row1, int32_t *out, int64_t ld, void *scratch,
                          tp_prefetch next) {
    assert(w->cols % 128 == 0);
    matmul_panels(w, w->cols, acts, sum_q, n, row0, row1, out, ld, scratch, next, panel_u8);
}
