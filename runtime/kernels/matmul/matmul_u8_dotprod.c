#define sdot vdotq_s32
#include "../words/tile_neon.h"

#include "matmul_128.h"

MATMUL_128(u8, dotprod)
