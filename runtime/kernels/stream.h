/* Weights are read once a token, in one sequential stream a thread, and what decides the speed is how many lines are on their
 * way. The first cache has too few places for lines in flight to hide the memory's latency, so the stream goes to the second
 * cache far ahead, and from there to the first shortly before use. Prefetching past a buffer's end does nothing. */
#ifndef TRITPACK_STREAM_H
#define TRITPACK_STREAM_H

#include "common.h"

enum { STREAM_FAR = 16384, STREAM_NEAR = 4096 };

/* Once for every 64 bytes. */
TP_INLINE void stream_from(uintptr_t p) {       /* a number: no pointer past the buffer is ever made */
    __builtin_prefetch((const void *)(p + STREAM_FAR), 0, 2);
    __builtin_prefetch((const void *)(p + STREAM_NEAR), 0, 3);
}

TP_INLINE void stream_ahead(const void *at) { stream_from((uintptr_t)at); }

/* Once for every block of `bytes` bytes. */
TP_INLINE void stream_block_ahead(const void *block, int bytes) {
#pragma GCC unroll 4
    for (int line = 0; line < bytes; line += 64) stream_from((uintptr_t)block + (uintptr_t)line);
}

#endif
