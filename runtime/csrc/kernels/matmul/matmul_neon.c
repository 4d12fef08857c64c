/* The product of many tokens, for NEON. */
#include "../simd_i8/neon.h"

#define sdot neon_dot
#include "../simd_i8/matmul_tile_neon.inc"

#define KERNEL matmul_i2_s_neon
#define PANEL_ROW panel_row_i2_s
#include "matmul_128.inc"

#define KERNEL matmul_u8_neon
#define PANEL_ROW panel_row_u8
#include "matmul_128.inc"
