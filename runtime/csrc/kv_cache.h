/* Where a position stands in the KV cache. Blocks of positions lie one after the other: single
 * vectors of floats, or sixteen positions of 16-bit integers (cache16.h). */
#ifndef TRITPACK_KV_CACHE_H
#define TRITPACK_KV_CACHE_H

#include "kernels/attention/cache16.h"
#include "session.h"

/* Positions per block, blocks of the whole context, bytes per block. */
static inline int64_t tp_kv_block(const tp_session *s) { return s->kv_type == TP_KV_I16 ? 16 : 1; }
static inline int64_t tp_kv_blocks(const tp_session *s) {
    return (s->n_ctx + tp_kv_block(s) - 1) / tp_kv_block(s);
}
static inline int64_t tp_kv_bytes(const tp_session *s) {
    const int64_t dim = s->model->hp.head_dim;
    return s->kv_type == TP_KV_I16 ? cache16_bytes(cache16_dim(dim)) : dim * (int64_t)sizeof(float);
}

/* The block of this layer that holds a position. cache: s->k_cache or s->v_cache. */
static inline uint8_t *tp_kv_at(const tp_session *s, uint8_t *cache, int64_t head,
                                int64_t position) {
    return cache + ((s->layer_index * s->model->hp.kv_heads + head) * tp_kv_blocks(s) +
                    position / tp_kv_block(s)) *
                       tp_kv_bytes(s);
}

#endif
