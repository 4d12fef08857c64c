#include "../avx512vnni.h"
#include "../i2_s.h"

/* One row at a time, so that a thread reads one sequential stream, prefetched PREFETCH bytes ahead. A line of 64 bytes
 * is two blocks; its four fields are masked where they stand, not shifted down: accumulator g holds 64, 16, 4 or 1 times
 * its sum and is shifted once a row. Bounds: |lane| <= (cols / 256) * 4 * 192 * 128 < 2^31 for cols <= 2^21.
 * acts come as [line][field][64]: 32 activations of the even block, 32 of the odd (zeros if there is none). */
enum { PREFETCH = 8192 };

TP_INLINE void line(__m512i v, const int8_t *q, __m512i *a0, __m512i *a1, __m512i *a2, __m512i *a3) {
    dot_u8_s8(a0, _mm512_and_si512(v, _mm512_set1_epi8((char)0xc0)), _mm512_load_si512(q));
    dot_u8_s8(a1, _mm512_and_si512(v, _mm512_set1_epi8(0x30)), _mm512_load_si512(q + 64));
    dot_u8_s8(a2, _mm512_and_si512(v, _mm512_set1_epi8(0x0c)), _mm512_load_si512(q + 128));
    dot_u8_s8(a3, _mm512_and_si512(v, _mm512_set1_epi8(0x03)), _mm512_load_si512(q + 192));
}

void matvec_i2_s_avx512vnni(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                            int64_t ld, void *scratch) {
    assert(n == 1 && w->cols % 128 == 0 && 0 <= row0 && row1 <= w->rows);
    (void)scratch, (void)ld, (void)n;
    const int64_t lines = w->cols / 256, half = w->cols / 128 % 2;
    const uint8_t *codes = i2_s_row(w, row0);
    for (int64_t r = row0; r < row1; r++) {
        const int8_t *q = acts;
        __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
        for (int64_t l = 0; l < lines; l++, codes += 64, q += 256) {
            _mm_prefetch((const char *)((uintptr_t)codes + PREFETCH), _MM_HINT_T0);
            line(_mm512_loadu_si512(codes), q, &a0, &a1, &a2, &a3);
        }
        if (half) {
            line(_mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)codes)), q, &a0, &a1, &a2, &a3);
            codes += 32;
        }
        a0 = _mm512_add_epi32(_mm512_srai_epi32(a0, 6), _mm512_srai_epi32(a1, 4));
        a2 = _mm512_add_epi32(_mm512_srai_epi32(a2, 2), a3);
        out[r - row0] = _mm512_reduce_add_epi32(_mm512_add_epi32(a0, a2)) - sum_q[0];
    }
}
