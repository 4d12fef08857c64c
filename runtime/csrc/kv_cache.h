/* Where a position stands in the KV cache: in blocks of sixteen, one after the other, of floats
 * (cache32.h) or of 16-bit integers (cache16.h). Prompt caches of users hold these blocks: another
 * order or other arithmetic is a new STATE_VERSION in runtime/prompt_cache.py. */
#ifndef TRITPACK_KV_CACHE_H
#define TRITPACK_KV_CACHE_H

#include "kernels/attention/cache16.h"
#include "kernels/attention/cache32.h"
#include "session.h"

enum { TP_KV_BLOCK = 16 }; /* positions */

/* Blocks of so many positions, bytes per block. */
static inline int64_t tp_kv_blocks(int64_t positions) {
    return (positions + TP_KV_BLOCK - 1) / TP_KV_BLOCK;
}
static inline int64_t tp_kv_bytes(const tp_session *s) {
    const int64_t dim = s->model->hp.head_dim;
    return s->kv_type == TP_KV_I16 ? cache16_bytes(cache16_dim(dim)) : cache32_bytes(dim);
}

/* The block of a head that holds a position. cache: k_cache or v_cache of q. heads are counted
 * through all layers. */
static inline uint8_t *tp_kv_at(const tp_sequence *q, uint8_t *cache, int64_t head,
                                int64_t position) {
    return cache +
           (head * tp_kv_blocks(q->n_ctx) + position / TP_KV_BLOCK) * tp_kv_bytes(q->session);
}

#endif
