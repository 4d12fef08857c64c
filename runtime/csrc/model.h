/* The model as the graph sees it. */
#ifndef TRITPACK_MODEL_H
#define TRITPACK_MODEL_H

#include "internal.h"

struct tp_model {
    tp_hparams hp;              /* its pointers point to the copies below */
    float *inv_freq;            /* (head_dim / 2) */
    float *inv_freq_sliding;    /* (head_dim / 2) or NULL */
    tp_layer *layers;           /* (layers); a linear's `reserved` is 1 if it has stray codes (tp_one_scale_per_row) */
    tp_tensor token_embd;       /* (vocab, hidden) */
    tp_tensor output_norm;      /* (1, hidden) */
    tp_tensor output;           /* (vocab, hidden); a copy of token_embd if tied */
};

#endif
