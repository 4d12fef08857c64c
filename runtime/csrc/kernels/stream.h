/* Weights are read once per token, in one sequential stream per thread, and what decides the
 * speed is how many lines are on their way. L1 has too few places for lines in flight to hide the
 * memory's latency, so the stream is prefetched into L2 far ahead, and from there into L1 shortly
 * before use. A Zen 5 has places enough in L1, and the way over L2 only costs it time. Prefetching
 * past a buffer's end does nothing. */
#ifndef TRITPACK_STREAM_H
#define TRITPACK_STREAM_H

#include "common.h"

typedef struct tp_stream_way {
    int32_t far, near;
} tp_stream_way;                /* bytes ahead: into L2, into L1 */
extern tp_stream_way tp_stream; /* of this CPU (cpu.c), set when the library is loaded */

/* Once for every 64 bytes. */
TP_INLINE void stream_from(uintptr_t p) { /* a number: no pointer past the buffer is ever made */
    __builtin_prefetch((const void *)(p + (uintptr_t)tp_stream.far), 0, 2);
    __builtin_prefetch((const void *)(p + (uintptr_t)tp_stream.near), 0, 3);
}

TP_INLINE void stream_ahead(const void *at) { stream_from((uintptr_t)at); }

/* Once for every block of `bytes` bytes. */
TP_INLINE void stream_block_ahead(const void *block, int bytes) {
#pragma GCC unroll 4
    for (int line = 0; line < bytes; line += 64) stream_from((uintptr_t)block + (uintptr_t)line);
}

/* Prefetches the beginning of a piece of memory, which the walk through it does not. */
TP_INLINE void stream_start(tp_prefetch piece) {
    for (uint64_t byte = 0; byte < piece.bytes && byte < (uint64_t)tp_stream.near; byte += 64)
        __builtin_prefetch((const void *)(piece.from + byte), 0, 3);
}

/* Prefetches one share of the memory that the next task reads. The task at hand has `all` steps,
 * and this call goes with the steps done .. done + more - 1: prefetched all at once, the memory
 * would be evicted before it is used. The hint is for L1, from where lines fall into L2; a hint
 * for L2 alone did nothing on a Zen 5. */
TP_INLINE void prefetch_share(tp_prefetch next, int64_t done, int64_t more, int64_t all) {
    const int64_t lines = (int64_t)(next.bytes / 64), stop = (done + more) * lines / all;
    for (int64_t i = done * lines / all; i < stop && i < lines; i++)
        __builtin_prefetch((const void *)(next.from + 64 * (uintptr_t)i), 0, 3);
}

#endif
