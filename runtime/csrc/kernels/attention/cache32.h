/* A KV cache of floats. Positions stand in blocks of sixteen: keys (head_dim, 16 positions),
 * values (16 positions, head_dim). A word of keys then has a position per lane, and no lanes have
 * to be added up; values of all blocks are one matrix. */
#ifndef TRITPACK_CACHE32_H
#define TRITPACK_CACHE32_H

#include "../common.h"

static inline int64_t cache32_bytes(int64_t head_dim) { return 64 * head_dim; } /* of a block */
/* The float of a key, counted from the first block. */
static inline int64_t cache32_key(int64_t position, int64_t i, int64_t head_dim) {
    return (position / 16 * head_dim + i) * 16 + position % 16;
}

#endif
