/* The product of many tokens, for NEON with dotprod. */
#include "../simd_i8/matmul_tile_dotprod.h"

#define KERNEL matmul_i2_s_dotprod
#define PANEL_ROW panel_row_i2_s
#include "matmul_128.inc"

#define KERNEL matmul_u8_dotprod
#define PANEL_ROW panel_row_u8
#include "matmul_128.inc"
