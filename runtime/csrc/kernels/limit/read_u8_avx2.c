#include <immintrin.h>

#include "../common.h"

uint64_t read_u8_avx2(const uint8_t *data, int64_t n) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    assert(n % 256 == 0);
    for (int64_t i = 0; i < n; i += 128) {
        const __m256i *p = (const __m256i *)(const void *)(data + i);
        a = _mm256_xor_si256(a, _mm256_loadu_si256(p));
        b = _mm256_xor_si256(b, _mm256_loadu_si256(p + 1));
        c = _mm256_xor_si256(c, _mm256_loadu_si256(p + 2));
        d = _mm256_xor_si256(d, _mm256_loadu_si256(p + 3));
    }
    uint64_t w[4];
    _mm256_storeu_si256((__m256i *)(void *)w, _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
    return w[0] ^ w[1] ^ w[2] ^ w[3];
}
