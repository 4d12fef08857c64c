/* Sequences of tokens and the session that evaluates them: session.c, sequence.c and recurrence.c
 * make them, graph.c, attention.c and delta_net.c work on them. */
#ifndef TRITPACK_SESSION_H
#define TRITPACK_SESSION_H

#include "model.h"

/* Recurrent states at a position, and what entered the recurrences after it: later states follow
 * from them, bit by bit. */
typedef struct tp_checkpoint {
    float *states;    /* (recurrent layers, tp_state_floats) */
    float *inputs;    /* (recurrent layers, TP_KEPT, tp_input_floats) */
    int64_t position; /* of the states */
    int64_t count;    /* tokens whose inputs are kept; -1: there is no checkpoint */
    int of_prompt;    /* 1: these tokens are the end of a prompt */
} tp_checkpoint;
enum { TP_KEPT = 32 };

struct tp_sequence {
    tp_session *session;
    int is_own; /* of its session, which frees it */
    int64_t n_ctx, n_past;
    uint8_t *k_cache, *v_cache; /* (layers with attention, kv_heads, blocks) of kv_cache.h */
    float *states;              /* (recurrent layers, tp_state_floats) after n_past tokens */
    tp_checkpoint recent, prompt;
};

/* Tokens of one sequence that stand side by side in a batch. */
typedef struct tp_run {
    tp_sequence *sequence;
    int64_t row, n;      /* of the batch: the first, and how many */
    int64_t position;    /* of the first */
    int64_t wanted;      /* the last `wanted` need more than their keys and values */
    const tp_span *span; /* whose tokens they are, from `begin` on; until the batch begins */
    int64_t begin;
    /* attention, in this layer */
    int64_t tokens, blocks, parts; /* blocks of so many tokens; parts of heads that share a cache */
    int64_t piece;                 /* the first piece of work of this run */
    /* recurrent layers; the pointers are those of the first one */
    float *states;     /* what the tokens change */
    const float *from; /* what they begin with, the same or other ones */
    float *checkpoint; /* gets the states before token `split`; or NULL */
    float *inputs;     /* get what enters from token `first_kept` on; or NULL */
    int64_t split, first_kept;
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
        *head, *head_f32, *hadamard, *conv, *delta_rule;
    const tp_kernel *gates[TP_LAYOUT_COUNT]; /* of ssm_alpha and ssm_beta, if they are floats */
    uint8_t *used;                           /* (kernels) 1 = it ran in this session */

    float *x;          /* (batch, hidden) residual stream */
    float *h;          /* (batch, widest) input of linears as floats; states for the head */
    float *normed;     /* (batch, widest) that input after a linear's own norm, or NULL */
    float *rotated;    /* (batch, widest) that input in the basis of rotated linears, or NULL */
    float *q;          /* (batch, heads * head_dim) */
    float *k, *v;      /* (batch, kv_heads * head_dim) */
    float *gate, *up;  /* (batch, ffn) */
    float *add;        /* (batch, hidden) output of attn_output and ffn_down */
    float *cos_sin[2]; /* (batch, 2, rotary_dim / 2) of layers that see all; that slide */
    /* of attention, in the memory of a buffer that is not in use meanwhile */
    float *q_gate; /* (batch, heads, 2, head_dim) queries and gates, or NULL; in gate */
    float *mixed;  /* (batch, heads * head_dim) attention output; in up */
    /* of recurrent layers, the same way; rows: batch, TP_KEPT at least */
    float *channels;     /* (rows, tp_channels_of); in gate */
    float *delta;        /* (rows, tp_values_of) what the recurrence gives; in up */
    float *z;            /* (batch, tp_values_of) its gate; in q */
    float *alpha, *beta; /* (rows, value_heads) or NULL */
    float *unit;         /* (2, state_size) factors of the norms of queries and keys, or NULL */
    float *work;         /* (threads, tp_attention_floats) */
    tp_acts8 acts;       /* (batch, widest padded) */
    uint8_t *scratch; /* (threads, scratch_bytes) of the products, and a row of what enters them */
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

    int64_t begun, begun_at; /* tokens of tp_eval_begin, 0 = none, and the n_past they follow */
    int begun_wanted;        /* how many of them give logits */
};

/* How a linear takes few tokens. */
static inline tp_kernel_plan tp_matvec_for(const tp_session *s, const tp_linear *l) {
    return (l->nonzero_under_zero ? s->unpacking_matvec : s->matvec)[l->w->layout];
}

/* Notes that a kernel ran. */
static inline void tp_mark(tp_session *s, const tp_kernel *k) { s->used[tp_kernel_index(k)] = 1; }

/* Floats of one recurrent layer: its window, its states, and what enters for a token. Prompt caches
 * of users hold them: another order or other arithmetic is a new STATE_VERSION in
 * runtime/prompt_cache.py. */
enum { TP_COLUMNS = 16 }; /* of a state that stand side by side */
static inline int64_t tp_window_floats(const tp_hparams *hp) {
    return tp_round64((hp->conv_taps - 1) * tp_channels_of(hp));
}
static inline int64_t tp_slices(const tp_hparams *hp) { /* of a state, TP_COLUMNS each */
    return (hp->state_size + TP_COLUMNS - 1) / TP_COLUMNS;
}
static inline int64_t tp_state_floats(const tp_hparams *hp) {
    return tp_window_floats(hp) +
           hp->value_heads * tp_slices(hp) * hp->state_size * (int64_t)TP_COLUMNS;
}
static inline int64_t tp_input_floats(const tp_hparams *hp) {
    return tp_channels_of(hp) + 2 * (int64_t)hp->value_heads;
}

/* ---- graph.c ---- */
typedef enum tp_output { TP_OUTPUT_LOGITS, TP_OUTPUT_HIDDEN } tp_output;

/* Evaluate s->rows, which s->runs divide: first the embedding, then all layers, `count` at a time,
 * from s->layer_index on, and the output. Rows and runs are then used up; n_past stays as it is.
 * out: (wanted, vocab) logits or (wanted, hidden) states of the wanted tokens of all runs, in the
 * order of rows. NULL if none is wanted. */
void tp_begin_batch(tp_session *s);
void tp_run_layers(tp_session *s, int count);
void tp_end_batch(tp_session *s, tp_output kind, float *out);

/* ---- sequence.c ---- */
/* Gives a sequence its cache and its states. Returns a tp_status. */
int tp_sequence_init(tp_sequence *q, tp_session *s, int64_t n_ctx);
void tp_sequence_drop(tp_sequence *q);

/* ---- attention.c ---- */
/* Floats of s->work per thread. */
int64_t tp_attention_floats(const tp_session *s);
/* Turns s->q and s->k, and stores s->k and s->v in the caches. */
void tp_rope_and_store(tp_session *s);
/* Reads s->q and the caches, writes s->mixed. */
void tp_attention_run(tp_session *s);
/* A token's row of s->mixed, times sigmoid of the gates in s->q_gate. */
void tp_gated_row(tp_session *s, int64_t token, float *row /* (heads * head_dim) */);

/* ---- delta_net.c ---- */
/* The recurrence of the layer at work: reads s->channels, s->alpha and s->beta, which are then used
 * up, writes s->delta and what the runs point to. */
void tp_delta_net_run(tp_session *s);
/* A token's row of what enters ssm_out: s->delta after its norm, times silu of s->z. */
void tp_delta_net_row(tp_session *s, int64_t token, float *row /* (tp_values_of) */);
/* Brings states forward in all recurrent layers: `to` becomes what `from` is after `count` tokens
 * of these inputs, 0 <= count <= TP_KEPT. No batch may be at work. */
void tp_delta_net_replay(tp_session *s, float *to, const float *from, const float *inputs,
                         int64_t count);

/* ---- recurrence.c ---- */
int tp_recurrence_init(tp_sequence *q); /* a tp_status */
void tp_recurrence_drop(tp_sequence *q);
/* Says for each run of the batch which inputs and states are kept. */
void tp_recurrence_begin(tp_session *s);
/* The last position up to n_past whose states are known. */
int64_t tp_recurrence_rewindable(const tp_sequence *q, int64_t n_past);
/* Gives `to` the states that `from` had at n_past, which is rewindable. They may be the same. */
void tp_recurrence_restore(tp_sequence *to, const tp_sequence *from, int64_t n_past);
/* Bytes of all states. */
size_t tp_recurrence_bytes(const tp_sequence *q);
/* The sequence's states were set from outside: nothing earlier is known. */
void tp_recurrence_forget(tp_sequence *q);

#endif
