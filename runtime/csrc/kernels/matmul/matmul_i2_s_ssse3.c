#include "../words/tile_ssse3.h"

#include "matmul_128.h"

MATMUL_128(i2_s, ssse3)
