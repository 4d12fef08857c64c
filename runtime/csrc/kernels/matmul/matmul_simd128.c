/* The product of many tokens, for WebAssembly's SIMD128. */
#include "../simd_i8/matmul_tile_simd128.h"

#define KERNEL matmul_i2_s_simd128
#define PANEL_ROW panel_row_i2_s
#include "matmul_128.inc"

#define KERNEL matmul_u8_simd128
#define PANEL_ROW panel_row_u8
#include "matmul_128.inc"
