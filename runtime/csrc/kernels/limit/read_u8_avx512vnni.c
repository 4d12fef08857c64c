#include <immintrin.h>

#include "../common.h"

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
