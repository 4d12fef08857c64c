/* A random two-layer model, and sessions of it, for the tests of sessions. */
#ifndef TESTS_C_SESSION_MODEL_H
#define TESTS_C_SESSION_MODEL_H

#include <math.h>
#include <stdlib.h>

#include "runtime/csrc/selftest/selftest.h"
#include "tests/c/check.h"

enum {
    VOCAB = 67,
    HIDDEN = 256,
    FFN = 384,
    LAYERS = 2,
    HEADS = 4,
    KV_HEADS = 2,
    HEAD_DIM = 32,
    CONTEXT = 64,
    TOKENS = 29,
    MAX_PARTS = 128,
    KEY_HEADS = 2,
    VALUE_HEADS = 6,
    BLOCK = 64 /* of a rotation */
};

typedef struct fixture {
    tp_hparams hp;
    tp_layer layers[LAYERS];
    tp_tensor embd, norm, head;
    float inv_freq[HEAD_DIM / 2];
    float signs[8192];
    void *parts[MAX_PARTS]; /* exact-size heap */
    int count;
    uint64_t state;
} fixture;

/* Makes a tensor in this layout, or in I2_S if the layout cannot hold the shape. */
static tp_tensor tensor(fixture *f, int layout, int64_t rows, int64_t cols) {
    tp_tensor t = tp_test_tensor(layout, rows, cols);
    if (!t.nbytes) t = tp_test_tensor(TP_LAYOUT_I2_S, rows, cols);
    uint8_t *data = malloc(t.nbytes);
    CHECK(data && tp_random_tensor(&t, data, &f->state) == 0, "out of memory");
    f->parts[f->count++] = data;
    t.data = data;
    return t;
}

/* The parts of a model in which families differ. A negative head is tied. rich: every optional
 * norm, sliding layers, multipliers, interleaved RoPE pairs. brief: fewer thread counts and
 * batches. hybrid: the first layer is recurrent, the second has gates; it takes floats, and a
 * layout that holds any shape. */
typedef enum hybrid { NO_HYBRID, UNROTATED, SIGNED, UNSIGNED } hybrid;
typedef struct recipe {
    int embd, head, activation, sub_norms, linear, floats, rich, hidden, ffn, brief;
    hybrid hybrid;
} recipe;

#define PLAIN \
    ((recipe){.embd = TP_LAYOUT_F16, \
              .head = -1, \
              .activation = TP_ACT_RELU2, \
              .sub_norms = 1, \
              .linear = TP_LAYOUT_I2_S})

static void add_rich_parts(fixture *f) {
    const tp_hparams *hp = &f->hp;
    f->hp.rope_interleaved = 1;
    f->hp.window = 7;
    f->hp.inv_freq_sliding = f->inv_freq;
    f->hp.embedding_scale = 3.5f, f->hp.residual_scale = 0.7f, f->hp.logit_scale = 0.3f,
    f->hp.rope_factor = 1.1f;
    for (int i = 0; i < LAYERS; i++) {
        tp_layer *l = &f->layers[i];
        l->slides = i % 2;
        l->attn_q_norm = tensor(f, TP_LAYOUT_F32, 1, HEAD_DIM);
        l->attn_k_norm = tensor(f, TP_LAYOUT_F32, 1, HEAD_DIM);
        l->post_attention_norm = tensor(f, TP_LAYOUT_F32, 1, hp->hidden);
        l->post_ffw_norm = tensor(f, TP_LAYOUT_F32, 1, hp->hidden);
        tp_tensor *const own[] = {&l->attn_q_norm_in, &l->attn_k_norm_in, &l->attn_v_norm_in,
                                  &l->ffn_gate_norm_in, &l->ffn_up_norm_in};
        for (size_t j = 0; j < sizeof own / sizeof *own; j++)
            *own[j] = tensor(f, TP_LAYOUT_F32, 1, hp->hidden);
        l->attn_output_norm_in = tensor(f, TP_LAYOUT_F32, 1, HEADS * HEAD_DIM);
        l->ffn_down_norm_in = tensor(f, TP_LAYOUT_F32, 1, hp->ffn);
    }
}

static void rotate(fixture *f, hybrid kind) {
    tp_hparams *hp = &f->hp;
    hp->rotation_block = BLOCK;
    hp->grouped_heads = kind == SIGNED;
    const int32_t widths[] = {hp->hidden, HEADS * HEAD_DIM, VALUE_HEADS * hp->state_size, hp->ffn};
    int count = 0;
    for (int i = 0; kind == SIGNED && i < 4; count += widths[i++]) hp->sign_widths[i] = widths[i];
    for (int i = 0; i < count; i++) f->signs[i] = tp_random(&f->state) % 2 ? 1.0f : -1.0f;
    hp->signs = f->signs;
    for (int i = 0; i < LAYERS; i++) {
        tp_layer *l = &f->layers[i];
        tp_tensor *const all[] = {&l->attn_q,   &l->attn_k,   &l->attn_v,    &l->attn_output,
                                  &l->attn_qkv, &l->ssm_out,  &l->attn_gate, &l->ffn_gate,
                                  &l->ffn_up,   &l->ffn_down, &f->embd,      &f->head};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            all[j]->rotated = all[j]->data != NULL && all[j] != &l->attn_v; /* not every one is */
    }
}

/* Makes the first layer recurrent, and the others gated. */
static void make_hybrid(fixture *f, recipe r) {
    tp_hparams *hp = &f->hp;
    const tp_tensor absent = {0};
    const int size = r.hybrid == UNROTATED ? 24 : 32, values = VALUE_HEADS * size,
              channels = 2 * KEY_HEADS * size + values;
    hp->rotary_dim = 8;
    hp->gated_attention = 1;
    hp->key_heads = KEY_HEADS, hp->value_heads = VALUE_HEADS, hp->state_size = size;
    hp->conv_taps = 4;
    f->layers[1].attn_q = tensor(f, r.linear, 2 * HEADS * HEAD_DIM, hp->hidden);
    tp_layer *l = &f->layers[0];
    l->recurrent = 1;
    l->attn_q = l->attn_k = l->attn_v = l->attn_output = l->attn_sub_norm = absent;
    l->attn_q_norm = l->attn_k_norm = l->attn_q_norm_in = l->attn_k_norm_in = absent;
    l->attn_v_norm_in = l->attn_output_norm_in = absent;
    l->attn_qkv = tensor(f, r.linear, channels, hp->hidden);
    l->attn_gate = tensor(f, r.linear, values, hp->hidden);
    const int floats = r.hybrid == SIGNED;
    l->ssm_alpha = tensor(f, floats ? TP_LAYOUT_BF16 : r.linear, VALUE_HEADS, hp->hidden);
    l->ssm_beta = tensor(f, floats ? TP_LAYOUT_F16 : r.linear, VALUE_HEADS, hp->hidden);
    l->ssm_conv1d = tensor(f, TP_LAYOUT_F32, channels, hp->conv_taps);
    l->ssm_a = tensor(f, TP_LAYOUT_F32, 1, VALUE_HEADS);
    for (int i = 0; i < VALUE_HEADS; i++) { /* a state decays */
        float *const a = (float *)(uintptr_t)l->ssm_a.data + i;
        *a = -fabsf(*a);
    }
    l->ssm_dt = tensor(f, TP_LAYOUT_F32, 1, VALUE_HEADS);
    l->ssm_norm = tensor(f, TP_LAYOUT_F32, 1, size);
    l->ssm_out = tensor(f, r.linear, hp->hidden, values);
    if (r.hybrid != UNROTATED) rotate(f, r.hybrid);
}

static fixture *make(recipe r) {
    fixture *f = calloc(1, sizeof *f);
    const int hidden = r.hidden ? r.hidden : HIDDEN, ffn = r.ffn ? r.ffn : FFN;
    f->state = 42;
    for (int i = 0; i < HEAD_DIM / 2; i++)
        f->inv_freq[i] = powf(10000.0f, -2.0f * (float)i / HEAD_DIM);
    f->hp = (tp_hparams){.vocab_size = VOCAB,
                         .hidden = hidden,
                         .ffn = ffn,
                         .layers = LAYERS,
                         .heads = HEADS,
                         .kv_heads = KV_HEADS,
                         .head_dim = HEAD_DIM,
                         .context_length = CONTEXT,
                         .norm_eps = 1e-5f,
                         .projection_norm_eps = 1e-6f,
                         .activation = r.activation,
                         .int8_activations = !r.floats,
                         .embedding_scale = 1,
                         .residual_scale = 1,
                         .logit_scale = 1,
                         .attention_scale = 1.0f / sqrtf(HEAD_DIM),
                         .rope_factor = 1,
                         .rotary_dim = HEAD_DIM,
                         .inv_freq = f->inv_freq};
    for (int i = 0; i < LAYERS; i++) {
        tp_layer *l = &f->layers[i];
        l->attn_norm = tensor(f, TP_LAYOUT_F32, 1, hidden);
        l->attn_q = tensor(f, r.linear, HEADS * HEAD_DIM, hidden);
        l->attn_k = tensor(f, r.linear, KV_HEADS * HEAD_DIM, hidden);
        l->attn_v = tensor(f, r.linear, KV_HEADS * HEAD_DIM, hidden);
        if (r.sub_norms) l->attn_sub_norm = tensor(f, TP_LAYOUT_F32, 1, HEADS * HEAD_DIM);
        l->attn_output = tensor(f, r.linear, hidden, HEADS * HEAD_DIM);
        l->ffn_norm = tensor(f, TP_LAYOUT_F32, 1, hidden);
        l->ffn_gate = tensor(f, r.linear, ffn, hidden);
        l->ffn_up = tensor(f, r.linear, ffn, hidden);
        if (r.sub_norms) l->ffn_sub_norm = tensor(f, TP_LAYOUT_F32, 1, ffn);
        l->ffn_down = tensor(f, r.linear, hidden, ffn);
    }
    f->embd = tensor(f, r.embd, VOCAB, hidden);
    f->norm = tensor(f, TP_LAYOUT_F32, 1, hidden);
    if (r.head >= 0) f->head = tensor(f, r.head, VOCAB, hidden);
    if (r.rich) add_rich_parts(f);
    if (r.hybrid) make_hybrid(f, r);
    return f;
}

static void drop(fixture *f) {
    for (int i = 0; i < f->count; i++) free(f->parts[i]);
    free(f);
}

#define HYBRID(kind) \
    ((recipe){.embd = TP_LAYOUT_T2, \
              .head = (kind) == SIGNED ? TP_LAYOUT_T2 : -1, \
              .activation = TP_ACT_SILU, \
              .linear = TP_LAYOUT_T2, \
              .floats = 1, \
              .hybrid = (kind)})

static inline tp_session *session(const tp_model *m, int isa, int threads, int batch, int kv_type) {
    const tp_session_params p = {
        .n_ctx = CONTEXT, .threads = threads, .isa = isa, .kv_type = kv_type, .batch = batch};
    tp_session *s = NULL;
    const int status = tp_session_new(m, &p, &s);
    CHECK(status == TP_OK, "%s", tp_status_text(status));
    return s;
}

#endif
