/* What matmul_128.inc multiplies with on ARM with dotprod. */
#ifndef TRITPACK_MATMUL_TILE_DOTPROD_H
#define TRITPACK_MATMUL_TILE_DOTPROD_H

#define sdot vdotq_s32
#include "matmul_tile_neon.inc"

/* All four tokens in one load, each taken from its lane: loads that fill all lanes take the
 * places of dot products on many cores. */
#define word_times(acc, codes, q, t) \
    vdotq_laneq_s32(acc, vreinterpretq_s8_s32(codes), vld1q_s8(q), t)

#endif
