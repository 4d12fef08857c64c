/* Sequences of tokens and the session that evaluates them: session.c and sequence.c make them,
 * graph.c and attention.c work on them. */
#ifndef TRITPACK_SESSION_H
#define TRITPACK_SESSION_H

#include "model.h"

struct tp_sequence {
    tp_session *session;
    int is_own; /* of its session, which frees it */
    int64_t n_ctx, n_past;
    uint8_t *k_cache, *v_cache; /* (layers, kv_heads, blocks) of kv_cache.h */
};

/* Tokens of one sequence that stand side by side in a batch. */
typedef struct tp_run {
    const tp_sequence *sequence;
    int64_t row, n;   /* of the batch: the first, and how many */
    int64_t position; /* of the first */
    int64_t wanted;   /* the last `wanted` need more than their keys and values */
    /* attention, in this layer */
    int64_t tokens, blocks, parts; /* blocks of so many tokens; parts of heads that share a cache */
    int64_t piece;                 /* the first piece of work of this run */
} tp_run;

/* A token of a batch. */
typedef struct tp_row {
    int32_t token;
    const tp_sequence *sequence;
    int64_t position;
} tp_row;

struct tp_session {
    const tp_model *model;
    tp_pool *pool;
    int64_t n_ctx, batch;
    tp_sequence own; /* of tp_eval */
    int kv_type;
    tp_trace_fn *trace;
    void *trace_user;

    tp_kernel_plan matvec[TP_LAYOUT_COUNT], matmul[TP_LAYOUT_COUNT], dequantize[TP_LAYOUT_COUNT],
        matvec_f32[TP_LAYOUT_COUNT];
    tp_kernel_plan unpacking_matvec[TP_LAYOUT_COUNT]; /* of linears with nonzero_under_zero */
    const tp_kernel *quantize, *quantize16, *rescale, *rmsnorm, *glu, *rope, *attention, *cache16,
        *head, *head_f32;
    uint8_t *used; /* (kernels) 1 = it ran in this session */

    float *x;          /* (batch, hidden) residual stream */
    float *h;          /* (batch, widest) input of linears as floats; states for the head */
    float *normed;     /* (batch, widest) that input after a linear's own norm, or NULL */
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
    tp_row *rows; /* (batch), n at work */
    int64_t n;
    tp_run *runs; /* (batch), run_count at work */
    int64_t run_count;
    const tp_layer *layer;
    const tp_linear *linears; /* (TP_LINEAR_COUNT) of this layer */
    int layer_index;
};

/* How a linear takes few tokens. */
static inline tp_kernel_plan tp_matvec_for(const tp_session *s, const tp_linear *l) {
    return (l->nonzero_under_zero ? s->unpacking_matvec : s->matvec)[l->w->layout];
}

/* Notes that a kernel ran. */
static inline void tp_mark(tp_session *s, const tp_kernel *k) { s->used[tp_kernel_index(k)] = 1; }

/* ---- graph.c ---- */
typedef enum tp_output { TP_OUTPUT_LOGITS, TP_OUTPUT_HIDDEN } tp_output;

/* Evaluates s->rows, which s->runs divide. Rows and runs are then used up; n_past stays as it is.
 * out: (wanted, vocab) logits or (wanted, hidden) states of the wanted tokens of all runs, in the
 * order of rows. NULL if none is wanted. */
void tp_run_batch(tp_session *s, tp_output kind, float *out);

/* ---- sequence.c ---- */
/* Gives a sequence its cache. Returns a tp_status. */
int tp_sequence_init(tp_sequence *q, tp_session *s, int64_t n_ctx);
void tp_sequence_drop(tp_sequence *q);

/* ---- attention.c ---- */
/* Floats of s->work per thread. */
int64_t tp_attention_floats(const tp_session *s);
/* Turns s->q and s->k, and stores s->k and s->v in the caches. */
void tp_rope_and_store(tp_session *s);
/* Reads s->q and the caches, writes s->mixed. */
void tp_attention_run(tp_session *s);

#endif
