/* The scalar source, compiled for AVX2. */
#define unpack_tq1_0_scalar unpack_tq1_0_avx2
#include "unpack_tq1_0_scalar.c"
