#include "../neon.h"

#define sdot neon_dot
#include "../words/tile_neon.h"

#include "matmul_128.h"

MATMUL_128(u8, neon)
