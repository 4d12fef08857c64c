#include "../words/tile_i8mm.h"

#include "matmul_128.h"

MATMUL_128(i2_s, i8mm)
