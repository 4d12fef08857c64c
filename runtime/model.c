/* Building a model: every shape is checked here, so that nothing below has to. */
#include "model.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char place[64];

const char *tp_error_place(void) { return place; }

static int fail(int status, int layer, const char *name) {
    if (layer < 0) snprintf(place, sizeof place, "%s", name);
    else snprintf(place, sizeof place, "layer %d %s", layer, name);
    return status;
}

typedef enum role { NORM, OPTIONAL_NORM, LINEAR, HEAD } role;

static int check(const tp_tensor *t, role r, int64_t rows, int64_t cols) {
    if (!t->data) return r == OPTIONAL_NORM ? TP_OK : TP_ERR_ARGUMENT;
    if (t->rows != rows || t->cols != cols) return TP_ERR_SHAPE;
    switch (r) {
        case NORM:
        case OPTIONAL_NORM:
            if (t->layout != TP_LAYOUT_F32) return TP_ERR_LAYOUT;
            break;
        case LINEAR:
            if (!tp_kernel_best(TP_OP_MATVEC, t->layout, TP_ISA_SCALAR) || !tp_kernel_best(TP_OP_MATMUL, t->layout, TP_ISA_SCALAR)) return TP_ERR_LAYOUT;
            break;
        case HEAD:
            if (!tp_kernel_best(TP_OP_HEAD, t->layout, TP_ISA_SCALAR)) return TP_ERR_LAYOUT;
            break;
    }
    return tp_tensor_check(t);
}

static int between(int64_t v, int64_t lo, int64_t hi) { return lo <= v && v <= hi; }

static int check_hparams(const tp_hparams *hp) {
    if (!hp) return fail(TP_ERR_ARGUMENT, -1, "hparams");
#define REQUIRE(condition, name) \
    if (!(condition)) return fail(TP_ERR_ARGUMENT, -1, name)
    REQUIRE(between(hp->vocab_size, 1, 1 << 24), "vocab_size");
    REQUIRE(between(hp->hidden, 1, TP_MAX_COLS), "hidden");
    REQUIRE(between(hp->ffn, 1, TP_MAX_COLS), "ffn");
    REQUIRE(between(hp->layers, 1, 1 << 14), "layers");
    REQUIRE(between(hp->heads, 1, 1 << 14), "heads");
    REQUIRE(between(hp->kv_heads, 1, hp->heads) && hp->heads % hp->kv_heads == 0, "kv_heads");
    REQUIRE(between(hp->head_dim, 2, 1 << 14) && hp->head_dim % 2 == 0, "head_dim");
    REQUIRE((int64_t)hp->heads * hp->head_dim <= TP_MAX_COLS, "head_dim");
    REQUIRE(between(hp->context_length, 1, 1 << 24), "context_length");
    REQUIRE(hp->norm_eps >= 0 && hp->norm_eps < 1, "norm_eps");
    REQUIRE(hp->activation == TP_ACT_RELU2 || hp->activation == TP_ACT_SILU, "activation");
    REQUIRE(hp->inv_freq, "inv_freq");
#undef REQUIRE
    return TP_OK;
}

static int check_layer(const tp_hparams *hp, const tp_layer *l, int index) {
    const int64_t h = hp->hidden, f = hp->ffn, q = (int64_t)hp->heads * hp->head_dim, kv = (int64_t)hp->kv_heads * hp->head_dim;
    const struct { const char *name; const tp_tensor *t; role r; int64_t rows, cols; } parts[] = {
        {"attn_norm", &l->attn_norm, NORM, 1, h},      {"attn_q", &l->attn_q, LINEAR, q, h},
        {"attn_k", &l->attn_k, LINEAR, kv, h},         {"attn_v", &l->attn_v, LINEAR, kv, h},
        {"attn_sub_norm", &l->attn_sub_norm, OPTIONAL_NORM, 1, q}, {"attn_output", &l->attn_output, LINEAR, h, q},
        {"ffn_norm", &l->ffn_norm, NORM, 1, h},        {"ffn_gate", &l->ffn_gate, LINEAR, f, h},
        {"ffn_up", &l->ffn_up, LINEAR, f, h},          {"ffn_sub_norm", &l->ffn_sub_norm, OPTIONAL_NORM, 1, f},
        {"ffn_down", &l->ffn_down, LINEAR, h, f},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const int status = check(parts[i].t, parts[i].r, parts[i].rows, parts[i].cols);
        if (status) return fail(status, index, parts[i].name);
    }
    return TP_OK;
}

int tp_model_new(const tp_hparams *hp, const tp_layer *layers, const tp_tensor *token_embd, const tp_tensor *output_norm,
                 const tp_tensor *output, tp_model **out) {
    int status;
    place[0] = 0;
    if (!out) return fail(TP_ERR_ARGUMENT, -1, "out");
    *out = NULL;
    if ((status = check_hparams(hp))) return status;
    if (!layers) return fail(TP_ERR_ARGUMENT, -1, "layers");
    for (int i = 0; i < hp->layers; i++)
        if ((status = check_layer(hp, &layers[i], i))) return status;
    if (!token_embd || (status = check(token_embd, HEAD, hp->vocab_size, hp->hidden))) return fail(token_embd ? status : TP_ERR_ARGUMENT, -1, "token_embd");
    if (!output_norm || (status = check(output_norm, NORM, 1, hp->hidden))) return fail(output_norm ? status : TP_ERR_ARGUMENT, -1, "output_norm");
    const int tied = !output || !output->data;
    if (!tied && (status = check(output, HEAD, hp->vocab_size, hp->hidden))) return fail(status, -1, "output");

    tp_model *m = tp_alloc(1, sizeof *m);
    if (!m) return fail(TP_ERR_MEMORY, -1, "model");
    m->layers = tp_alloc((size_t)hp->layers, sizeof *layers);
    m->inv_freq = tp_alloc((size_t)hp->head_dim / 2, sizeof(float));
    if (!m->layers || !m->inv_freq) {
        tp_model_free(m);
        return fail(TP_ERR_MEMORY, -1, "model");
    }
    m->hp = *hp;
    memcpy(m->layers, layers, (size_t)hp->layers * sizeof *layers);
    memcpy(m->inv_freq, hp->inv_freq, (size_t)hp->head_dim / 2 * sizeof(float));
    m->hp.inv_freq = m->inv_freq;
    m->token_embd = *token_embd;
    m->output_norm = *output_norm;
    m->output = tied ? *token_embd : *output;
    *out = m;
    return TP_OK;
}

void tp_model_free(tp_model *m) {
    if (!m) return;
    tp_free(m->layers);
    tp_free(m->inv_freq);
    tp_free(m);
}
