#include "../words/tile_dotprod.h"

#include "matmul_128.h"

MATMUL_128(u8, dotprod)
