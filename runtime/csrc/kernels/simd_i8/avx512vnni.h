/* AVX-512 VNNI words shared by integer kernels. */
#ifndef TRITPACK_AVX512VNNI_H
#define TRITPACK_AVX512VNNI_H

#include <immintrin.h>

#include "../common.h"

/* acc += u * s, four u8 * s8 to a lane. Inline assembly, not the intrinsic: gcc 12 spills every
 * accumulator of a big register tile around the intrinsic, which halves the speed
 * (tests/runtime/test_kernels.py looks for such spills). */
TP_INLINE void dot_u8_s8(__m512i *acc, __m512i u, __m512i s) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(u), "v"(s));
}

/* acc += a * b, two s16 * s16 to a lane. */
TP_INLINE void dot_s16_s16(__m512i *acc, __m512i a, __m512i b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b));
}

/* 3 x mod 256. Opaque: of several in a row clang makes multiplications by 9, 27, .., for which
 * bytes have no instruction. */
TP_INLINE __m512i thrice(__m512i x) {
    x = _mm512_add_epi8(_mm512_add_epi8(x, x), x);
    __asm__("" : "+v"(x));
    return x;
}

/* The sums of eight vectors. */
TP_INLINE __m256i sums_of_8(const __m256i v[8]) {
    const __m256i a =
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    const __m256i b =
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                            _mm256_permute2x128_si256(a, b, 0x31));
}

#endif
