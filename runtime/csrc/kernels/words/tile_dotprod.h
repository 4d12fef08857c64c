/* What matmul_128.h multiplies with on ARM with dotprod. */
#define sdot vdotq_s32
#include "tile_neon.h"

/* All four tokens in one load, each taken from its lane: loads that fill all lanes take the places of dot products on many cores. */
#define word_times(acc, codes, q, t) vdotq_laneq_s32(acc, vreinterpretq_s8_s32(codes), vld1q_s8(q), t)
