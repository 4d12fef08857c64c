/* The scalar source, compiled for AVX2. */
#define unpack_t158_scalar unpack_t158_avx2
#include "unpack_t158_scalar.c"
