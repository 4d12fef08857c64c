#include "../words/tile_simd128.h"

#include "matmul_128.h"

MATMUL_128(u8, simd128)
