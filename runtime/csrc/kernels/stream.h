/* Weights are read once per token, in one sequential stream per thread, and what decides the speed is how many lines are on their
 * way. The first cache has too few places for lines in flight to hide the memory's latency, so the stream goes to the second
 * cache far ahead, and from there to the first shortly before use. A Zen 5 has places enough in its first cache, and the way over the
 * second only costs it time. Prefetching past a buffer's end does nothing. */
#ifndef TRITPACK_STREAM_H
#define TRITPACK_STREAM_H

#include "common.h"

typedef struct tp_stream_way { int32_t far, near; } tp_stream_way;      /* bytes ahead: into the second cache, into the first */
extern tp_stream_way tp_stream;     /* of this CPU (cpu.c), set when the library is loaded */

/* Once for every 64 bytes. */
TP_INLINE void stream_from(uintptr_t p) {       /* a number: no pointer past the buffer is ever made */
    __builtin_prefetch((const void *)(p + (uintptr_t)tp_stream.far), 0, 2);
    __builtin_prefetch((const void *)(p + (uintptr_t)tp_stream.near), 0, 3);
}

TP_INLINE void stream_ahead(const void *at) { stream_from((uintptr_t)at); }

/* Once for every block of `bytes` bytes. */
TP_INLINE void stream_block_ahead(const void *block, int bytes) {
#pragma GCC unroll 4
    for (int line = 0; line < bytes; line += 64) stream_from((uintptr_t)block + (uintptr_t)line);
}

/* What the walk through a piece of memory would not have asked for: its beginning. */
TP_INLINE void stream_start(tp_prefetch piece) {
    for (uint64_t byte = 0; byte < piece.bytes && byte < (uint64_t)tp_stream.near; byte += 64) __builtin_prefetch((const void *)(piece.from + byte), 0, 3);
}

/* Of memory that is read after the work at hand, the share that is due while `more` of `all` are done after `done`: asked for at once it
 * would be pushed out again before its turn. Into the first cache, from where it falls into the second: a hint to the second alone
 * did nothing on a Zen 5. */
TP_INLINE void prefetch_share(tp_prefetch next, int64_t done, int64_t more, int64_t all) {
    const int64_t lines = (int64_t)(next.bytes / 64), stop = (done + more) * lines / all;
    for (int64_t i = done * lines / all; i < stop && i < lines; i++) __builtin_prefetch((const void *)(next.from + 64 * (uintptr_t)i), 0, 3);
}

#endif
