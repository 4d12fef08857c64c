/* The product of many tokens, for NEON with i8mm. */
#include "../simd_i8/matmul_tile_i8mm.h"

#define KERNEL matmul_i2_s_i8mm
#define PANEL_ROW panel_row_i2_s
#include "matmul_128.inc"

#define KERNEL matmul_u8_i8mm
#define PANEL_ROW panel_row_u8
#include "matmul_128.inc"
