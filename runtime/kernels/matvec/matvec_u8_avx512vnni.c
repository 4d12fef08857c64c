#include "../avx512vnni.h"
#include "../u8.h"

void matvec_u8_avx512vnni(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                          int64_t ld, void *scratch) {
    assert(n == 1 && w->cols % 128 == 0 && 0 <= row0 && row1 <= w->rows);
    (void)scratch, (void)ld, (void)n;
    const int8_t *q = acts;
    for (int64_t r = row0; r < row1; r++) {
        const uint8_t *codes = u8_row(w, r);
        __m512i a0 = _mm512_setzero_si512(), a1 = a0;
        for (int64_t c = 0; c < w->cols; c += 128) {
            dot_u8_s8(&a0, _mm512_loadu_si512(codes + c), _mm512_loadu_si512(q + c));
            dot_u8_s8(&a1, _mm512_loadu_si512(codes + c + 64), _mm512_loadu_si512(q + c + 64));
        }
        out[r - row0] = _mm512_reduce_add_epi32(_mm512_add_epi32(a0, a1)) - sum_q[0];
    }
}
