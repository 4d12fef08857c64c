/* The product of many tokens, for SSSE3. */
#include "../simd_i8/matmul_tile_ssse3.h"

#define KERNEL matmul_i2_s_ssse3
#define PANEL_ROW panel_row_i2_s
#include "matmul_128.inc"

#define KERNEL matmul_u8_ssse3
#define PANEL_ROW panel_row_u8
#include "matmul_128.inc"
