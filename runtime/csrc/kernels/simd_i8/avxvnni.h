/* AVX-VNNI: the 256-bit dot product of CPUs without AVX-512. */
#ifndef TRITPACK_AVXVNNI_H
#define TRITPACK_AVXVNNI_H

#include <immintrin.h>

#include "../common.h"

/* The same instruction as AVX-512 encodes it serves to test these kernels on a CPU that has only
 * that one: see cpu.c. */
#ifdef TP_AVXVNNI_AS_EVEX
#define AVXVNNI_DOT "%{evex%} vpdpbusd"
#else
#define AVXVNNI_DOT "%{vex%} vpdpbusd"
#endif

/* acc += u * s, four u8 * s8 to a lane. Assembly for the reason that avx512vnni.h gives. */
TP_INLINE void dot256_u8_s8(__m256i *acc, __m256i u, __m256i s) {
    __asm__(AVXVNNI_DOT " %2, %1, %0" : "+x"(*acc) : "x"(u), "x"(s));
}

#endif
