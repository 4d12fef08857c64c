#include <arm_neon.h>

/* Neighbouring products of at most 3 * 128 are added in int16, then four to a lane. */
#define TILE_DOT(acc, u, s) \
    vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(vmull_s8(vget_low_s8(u), vget_low_s8(s))), vpaddlq_s16(vmull_high_s8(u, s))))
#include "../words/tile_neon.h"

#include "matmul_128.h"

MATMUL_128(u8, neon)
