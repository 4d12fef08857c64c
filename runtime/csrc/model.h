/* The model as the graph sees it. */
#ifndef TRITPACK_MODEL_H
#define TRITPACK_MODEL_H

#include "internal.h"

typedef enum tp_linear_id {
    TP_ATTN_Q,
    TP_ATTN_K,
    TP_ATTN_V,
    TP_ATTN_OUTPUT,
    TP_FFN_GATE,
    TP_FFN_UP,
    TP_FFN_DOWN,
    TP_LINEAR_COUNT
} tp_linear_id;

/* A linear of a layer, and what its products have to know of it. */
typedef struct tp_linear {
    const tp_tensor *w;       /* (out, in) */
    const tp_tensor *norm_in; /* (1, in) of its own input, or absent */
    int nonzero_under_zero;   /* of tp_one_scale_per_row */
} tp_linear;

struct tp_model {
    tp_hparams hp;                         /* its pointers point to the copies below */
    float *inv_freq;                       /* (head_dim / 2) */
    float *inv_freq_sliding;               /* (head_dim / 2) or NULL */
    tp_layer *layers;                      /* (layers) */
    tp_linear (*linears)[TP_LINEAR_COUNT]; /* (layers, TP_LINEAR_COUNT) of these layers */
    tp_tensor token_embd;                  /* (vocab, hidden) */
    tp_tensor output_norm;                 /* (1, hidden) */
    tp_tensor output;                      /* (vocab, hidden); a copy of token_embd if tied */
};

#endif
