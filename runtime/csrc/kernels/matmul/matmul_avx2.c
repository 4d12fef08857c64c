/* The product of many tokens, for AVX2. */
#include "matmul_256.inc"

MATMUL_256(i2_s, avx2)
MATMUL_256(u8, avx2)
