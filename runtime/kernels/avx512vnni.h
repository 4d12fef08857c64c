/* AVX-512 VNNI words shared by integer kernels. */
#ifndef TRITPACK_AVX512VNNI_H
#define TRITPACK_AVX512VNNI_H

#include <immintrin.h>

#include "common.h"

/* acc += u * s, four u8 * s8 to a lane. Inline assembly, not the intrinsic: gcc 12 spills every accumulator of a big
 * register tile around the intrinsic, which halves the speed (tests/test_kernels.py looks for such spills). */
TP_INLINE void dot_u8_s8(__m512i *acc, __m512i u, __m512i s) { __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(u), "v"(s)); }

/* acc += a * b, two s16 * s16 to a lane. */
TP_INLINE void dot_s16_s16(__m512i *acc, __m512i a, __m512i b) { __asm__("vpdpwssd %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b)); }

#endif
