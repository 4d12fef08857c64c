/* How fast memory is read and int8 multiplied, for AVX-512 VNNI. */
#include "../simd_i8/avx512vnni.h"

uint64_t read_u8_avx512vnni(const uint8_t *data, int64_t n) {
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    assert(n % 256 == 0);
    for (int64_t i = 0; i < n; i += 256) {
        a = _mm512_xor_si512(a, _mm512_loadu_si512(data + i));
        b = _mm512_xor_si512(b, _mm512_loadu_si512(data + i + 64));
        c = _mm512_xor_si512(c, _mm512_loadu_si512(data + i + 128));
        d = _mm512_xor_si512(d, _mm512_loadu_si512(data + i + 192));
    }
    uint64_t w[8];
    _mm512_storeu_si512(w, _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
    return (w[0] ^ w[1]) ^ (w[2] ^ w[3]) ^ (w[4] ^ w[5]) ^ (w[6] ^ w[7]);
}

#define EACH12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define ZERO(i) __m512i a##i = _mm512_setzero_si512();
#define DOT(i) dot_u8_s8(&a##i, u, s);
#define SAME(i) same &= _mm512_cmpeq_epi32_mask(a##i, a0);

/* Twelve accumulators, as the matrix product has them. */
uint64_t dots_u8_avx512vnni(const uint8_t *us, int64_t n) {
    const __m512i u = _mm512_set1_epi8((char)us[0]), s = _mm512_set1_epi8((char)us[1]);
    __mmask16 same = 0xffff;
    EACH12(ZERO)
    for (int64_t i = 0; i < n; i++) {
        EACH12(DOT)
    }
    EACH12(SAME)
    return same == 0xffff ? (uint32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(a0)) : UINT64_MAX;
}
