/* One conversation: session.c makes it, graph.c and attention.c work on it. */
#ifndef TRITPACK_SESSION_H
#define TRITPACK_SESSION_H

#include "model.h"

struct tp_session {
    const tp_model *model;
    tp_pool *pool;
    int64_t n_ctx, batch, n_past;
    int kv_type;
    tp_trace_fn *trace;
    void *trace_user;

    tp_kernel_plan matvec[TP_LAYOUT_COUNT], matmul[TP_LAYOUT_COUNT], dequantize[TP_LAYOUT_COUNT],
        matvec_f32[TP_LAYOUT_COUNT];
    tp_kernel_plan unpacking_matvec[TP_LAYOUT_COUNT]; /* of linears with nonzero_under_zero */
    const tp_kernel *quantize, *quantize16, *rescale, *rmsnorm, *glu, *rope, *attention, *cache16,
        *head, *head_f32;
    uint8_t *used; /* (kernels) 1 = it ran in this session */

    uint8_t *k_cache, *v_cache; /* (layers, kv_heads, blocks) of kv_cache.h */
    float *x;                   /* (batch, hidden) residual stream */
    float *h;          /* (batch, widest) input of linears as floats; states for the head */
    float *own;        /* (batch, widest) that input after a linear's own norm, or NULL */
    float *q;          /* (batch, heads * head_dim) */
    float *k, *v;      /* (batch, kv_heads * head_dim) */
    float *mixed;      /* (batch, heads * head_dim) attention output */
    float *gate, *up;  /* (batch, ffn) */
    float *add;        /* (batch, hidden) output of attn_output and ffn_down */
    float *cos_sin[2]; /* (batch, 2, head_dim / 2) of layers that see all; that slide */
    float *work;       /* (threads, tp_attention_floats) */
    tp_acts8 acts;     /* (batch, widest padded) */
    uint8_t *scratch;  /* (threads, scratch_bytes) of the products, and a row of what enters them */
    size_t scratch_bytes;
    void *acts16; /* of the head; NULL for heads that take floats */

    /* the batch at work */
    const int32_t *tokens; /* (n) */
    int64_t n;
    int64_t wanted; /* the last `wanted` tokens need more than their keys and values */
    const tp_layer *layer;
    const tp_linear *linears; /* (TP_LINEAR_COUNT) of this layer */
    int layer_index;
};

typedef enum tp_wanted { TP_WANT_NOTHING, TP_WANT_LAST, TP_WANT_ALL, TP_WANT_HIDDEN } tp_wanted;

/* How a linear takes few tokens. */
static inline tp_kernel_plan tp_matvec_for(const tp_session *s, const tp_linear *l) {
    return (l->nonzero_under_zero ? s->unpacking_matvec : s->matvec)[l->w->layout];
}

/* Notes that a kernel ran. */
static inline void tp_mark(tp_session *s, const tp_kernel *k) { s->used[tp_kernel_index(k)] = 1; }

/* ---- graph.c ---- */
/* Appends n <= batch tokens that fit into the context. out: (vocab), (n, vocab) or (n, hidden). */
void tp_run_batch(tp_session *s, const int32_t *tokens /* (n) */, int64_t n, tp_wanted want,
                  float *out);

/* ---- attention.c ---- */
/* Floats of s->work per thread. */
int64_t tp_attention_floats(const tp_session *s);
/* Turns s->q and s->k, and stores s->k and s->v in the cache. */
void tp_rope_and_store(tp_session *s);
/* Reads s->q and the cache, writes s->mixed. */
void tp_attention_run(tp_session *s);

#endif
