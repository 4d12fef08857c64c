/* One conversation: what graph.c works on and session.c makes. */
#ifndef TRITPACK_SESSION_H
#define TRITPACK_SESSION_H

#include "kernels/attention/cache16.h"
#include "model.h"

struct tp_session {
    const tp_model *model;
    tp_pool *pool;
    int64_t n_ctx, batch, n_past;
    int kv_type;
    tp_trace_fn *trace;
    void *trace_user;

    tp_way matvec[TP_LAYOUT_COUNT], matmul[TP_LAYOUT_COUNT], dequantize[TP_LAYOUT_COUNT], matvec_f32[TP_LAYOUT_COUNT];
    tp_way plain_matvec[TP_LAYOUT_COUNT];   /* of tensors with stray codes (model.h); products of many tokens are plain in all such layouts */
    const tp_kernel *quantize, *quantize16, *rescale, *rmsnorm, *glu, *rope, *attention, *cache16, *head, *head_f32;
    uint8_t *used;              /* (kernels) 1 = ran in this session */

    uint8_t *k_cache, *v_cache; /* (layers, kv_heads, n_ctx, head_dim) floats, or (layers, kv_heads, blocks) of cache16.h */
    float *x;                   /* (batch, hidden) residual stream */
    float *h;                   /* (batch, widest) input of the next linears where their codes are not enough; states for the head */
    float *own;                 /* (batch, widest) the same behind a linear's own norm; NULL where none has one */
    float *q;                   /* (batch, heads * head_dim) */
    float *k, *v;               /* (batch, kv_heads * head_dim) */
    float *mixed;               /* (batch, heads * head_dim) attention output */
    float *gate, *up;           /* (batch, ffn) */
    float *add;                 /* (batch, hidden) output of attn_output and ffn_down */
    float *cos_sin[2];          /* (batch, 2, head_dim / 2) of layers that see all, and of those that slide (or NULL) */
    float *work;                /* (threads, tp_attention_floats) */
    tp_acts8 acts;              /* (batch, widest padded) */
    uint8_t *scratch;           /* (threads, scratch_bytes) of the products, and a row of what enters them */
    size_t scratch_bytes;
    void *acts16;               /* of the head; NULL for heads that take floats */

    /* the batch at work */
    const int32_t *tokens;      /* (n) */
    int64_t n, wanted;          /* of the last `wanted` tokens more than keys and values is needed */
    const tp_layer *layer;
    int layer_index;
};

typedef enum tp_wanted { TP_WANT_NOTHING, TP_WANT_LAST, TP_WANT_ALL, TP_WANT_HIDDEN } tp_wanted;

/* graph.c: appends n <= batch tokens that are known to fit. out: (vocab), (n, vocab) or (n, hidden). */
void tp_run_batch(tp_session *s, const int32_t *tokens /* (n) */, int64_t n, tp_wanted want, float *out);

/* Positions that stand together in the cache, their number for all of the context, and what they take in bytes. */
static inline int64_t tp_kv_block(const tp_session *s) { return s->kv_type == TP_KV_I16 ? 16 : 1; }
static inline int64_t tp_kv_blocks(const tp_session *s) { return (s->n_ctx + tp_kv_block(s) - 1) / tp_kv_block(s); }
static inline int64_t tp_kv_bytes(const tp_session *s) {
    const int64_t dim = s->model->hp.head_dim;
    return s->kv_type == TP_KV_I16 ? cache16_bytes(cache16_dim(dim)) : dim * (int64_t)sizeof(float);
}
static inline int64_t tp_scores_stride(const tp_session *s) { return (s->n_ctx + 15) / 16 * 16 + 16; }

/* Tokens that read a cache together: with the heads that share it about sixteen rows, whose scores stay in the second cache. */
static inline int64_t tp_attention_tokens(const tp_session *s) {
    const int64_t group = s->model->hp.heads / s->model->hp.kv_heads;
    const int64_t tokens = group < 16 ? 16 / group : 1;
    return tokens < s->batch ? tokens : s->batch;
}
static inline int64_t tp_attention_floats(const tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    return tp_attention_work(tp_attention_tokens(s), hp->heads / hp->kv_heads, hp->head_dim, tp_scores_stride(s));
}

#endif
