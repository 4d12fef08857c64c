/* The model as the graph sees it. */
#ifndef TRITPACK_MODEL_H
#define TRITPACK_MODEL_H

#include "internal.h"

typedef enum tp_linear_id {
    TP_ATTN_Q,
    TP_ATTN_K,
    TP_ATTN_V,
    TP_ATTN_OUTPUT,
    TP_ATTN_QKV,
    TP_ATTN_GATE,
    TP_SSM_ALPHA,
    TP_SSM_BETA,
    TP_SSM_OUT,
    TP_FFN_GATE,
    TP_FFN_UP,
    TP_FFN_DOWN,
    TP_LINEAR_COUNT
} tp_linear_id;

/* A linear of a layer, and what its products have to know of it. */
typedef struct tp_linear {
    const tp_tensor *w;       /* (out, in), or absent in layers of this kind */
    const tp_tensor *norm_in; /* (1, in) of its own input, or absent */
    int nonzero_under_zero;   /* of tp_one_scale_per_row */
} tp_linear;

struct tp_model {
    tp_hparams hp;                         /* its pointers point to the copies below */
    float *inv_freq;                       /* (rotary_dim / 2) */
    float *inv_freq_sliding;               /* (rotary_dim / 2) or NULL */
    float *signs;                          /* (sum of sign_widths) or NULL */
    tp_layer *layers;                      /* (layers) */
    tp_linear (*linears)[TP_LINEAR_COUNT]; /* (layers, TP_LINEAR_COUNT) of these layers */
    int32_t *place;                        /* (layers) layers of its kind before this one */
    int32_t recurrent_layers;
    float *taps;           /* (recurrent_layers, conv_taps, channels) of ssm_conv1d, turned */
    tp_tensor token_embd;  /* (vocab, hidden) */
    tp_tensor output_norm; /* (1, hidden) */
    tp_tensor output;      /* (vocab, hidden); a copy of token_embd if tied */
};

/* Widths of a recurrent layer: its keys, its values, and what its convolution mixes. */
static inline int64_t tp_keys_of(const tp_hparams *hp) {
    return (int64_t)hp->key_heads * hp->state_size;
}
static inline int64_t tp_values_of(const tp_hparams *hp) {
    return (int64_t)hp->value_heads * hp->state_size;
}
static inline int64_t tp_channels_of(const tp_hparams *hp) {
    return 2 * tp_keys_of(hp) + tp_values_of(hp);
}

/* 1 if a linear is there and ternary: ssm_alpha and ssm_beta may be floats. */
static inline int tp_is_product(const tp_linear *l) {
    return l->w->data && tp_is_ternary(l->w->layout);
}

/* ---- rotation.c ---- */
int tp_check_rotation(const tp_hparams *hp); /* a tp_status */
/* Whether a tensor of so many columns may be rotated. */
int tp_can_rotate(const tp_hparams *hp, int64_t cols);
int64_t tp_count_signs(const tp_hparams *hp);
/* The signs of inputs so wide, NULL for none. */
const float *tp_signs_of(const tp_model *m, int64_t width);

#endif
