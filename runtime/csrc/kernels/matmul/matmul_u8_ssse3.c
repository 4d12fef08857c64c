#include "../words/tile_ssse3.h"

#include "matmul_128.h"

MATMUL_128(u8, ssse3)
