#include "../words/tile_i8mm.h"

#include "matmul_128.h"

MATMUL_128(u8, i8mm)
