/* The product of many tokens, for AVX-VNNI. */
#include "../simd_i8/avxvnni.h"

#define TP_DOT256 dot256_u8_s8
#include "matmul_256.inc"

MATMUL_256(i2_s, avxvnni)
MATMUL_256(u8, avxvnni)
