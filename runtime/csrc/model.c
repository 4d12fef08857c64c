/* Makes a model. Every shape is checked here, so that no file below has to. */
#include "fpenv.h"
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

typedef enum role { ABSENT, NORM, OPTIONAL_NORM, FLOATS, LINEAR, GATE, TABLE } role;

static int is_float(int layout) {
    return layout == TP_LAYOUT_F32 || layout == TP_LAYOUT_F16 || layout == TP_LAYOUT_BF16;
}

static int fits_role(int layout, role r) {
    switch (r) {
        case LINEAR: return tp_is_ternary(layout);
        case GATE: return tp_is_ternary(layout) || is_float(layout);
        case TABLE:
            return tp_is_ternary(layout) || tp_kernel_best(TP_OP_LM_HEAD, layout, TP_ISA_SCALAR);
        default: return layout == TP_LAYOUT_F32;
    }
}

static int check(const tp_hparams *hp, const tp_tensor *t, role r, int64_t rows, int64_t cols) {
    if (!t->data) return r == OPTIONAL_NORM || r == ABSENT ? TP_OK : TP_ERR_ARGUMENT;
    if (r == ABSENT) return TP_ERR_ARGUMENT;
    if (t->rows != rows || t->cols != cols) return TP_ERR_SHAPE;
    if (!fits_role(t->layout, r)) return TP_ERR_LAYOUT;
    if (t->rotated && ((r != LINEAR && r != TABLE) || !tp_can_rotate(hp, cols)))
        return TP_ERR_ARGUMENT;
    return tp_tensor_check(t);
}

/* For int8 activations. Groups of columns would need one sum each, and no model is made that
 * way. */
static int check_scales(tp_linear *l) {
    const tp_ternary parts = tp_ternary_of(l->w);
    return tp_one_scale_per_row(&parts, &l->nonzero_under_zero) ? TP_OK : TP_ERR_LAYOUT;
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
    REQUIRE(hp->projection_norm_eps >= 0 && hp->projection_norm_eps < 1, "projection_norm_eps");
    REQUIRE(between(hp->activation, TP_ACT_RELU2, TP_ACT_GELU_TANH), "activation");
    REQUIRE(between(hp->int8_activations, 0, 1), "int8_activations");
    REQUIRE(between(hp->rope_interleaved, 0, 1), "rope_interleaved");
    REQUIRE(between(hp->rotary_dim, 2, hp->head_dim) && hp->rotary_dim % 2 == 0, "rotary_dim");
    REQUIRE(between(hp->gated_attention, 0, 1), "gated_attention");
    REQUIRE(between(hp->grouped_heads, 0, 1), "grouped_heads");
    REQUIRE(tp_check_rotation(hp) == TP_OK, "rotation");
    REQUIRE(hp->inv_freq, "inv_freq");
    REQUIRE(!hp->inv_freq_sliding || hp->window > 0, "window");
    const float factors[] = {hp->embedding_scale, hp->residual_scale, hp->logit_scale,
                             hp->attention_scale, hp->rope_factor};
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
        REQUIRE(factors[i] > 0 && factors[i] < 1e38f, "scales");
#undef REQUIRE
    return TP_OK;
}

/* Of a model with recurrent layers. Their gates have no int8 activations. */
static int check_recurrence(const tp_hparams *hp) {
    const int fits = between(hp->key_heads, 1, 1 << 14) && between(hp->state_size, 1, 1 << 12) &&
                     between(hp->value_heads, hp->key_heads, 1 << 14) &&
                     hp->value_heads % hp->key_heads == 0 && between(hp->conv_taps, 1, 64);
    if (!fits || tp_channels_of(hp) > TP_MAX_COLS) return fail(TP_ERR_ARGUMENT, -1, "recurrence");
    return hp->int8_activations ? fail(TP_ERR_ARGUMENT, -1, "int8_activations") : TP_OK;
}

typedef enum kind { EVERY, FULL, RECURRENT } kind; /* of layers */

static int check_layer(const tp_model *m, int index) {
    const tp_hparams *hp = &m->hp;
    const tp_layer *l = &m->layers[index];
    tp_linear *linears = m->linears[index];
    const int64_t h = hp->hidden, f = hp->ffn, d = hp->head_dim, q = hp->heads * d,
                  kv = hp->kv_heads * d, both = q * (1 + hp->gated_attention);
    const int64_t size = hp->state_size, v = tp_values_of(hp), heads = hp->value_heads,
                  mixed = tp_channels_of(hp);
    const struct {
        const char *name;
        const tp_tensor *t;
        kind of;
        role r;
        int64_t rows, cols;
        tp_linear_id linear;
    } parts[] = {
        {"attn_norm", &l->attn_norm, EVERY, NORM, 1, h, 0},
        {"attn_q", &l->attn_q, FULL, LINEAR, both, h, TP_ATTN_Q},
        {"attn_k", &l->attn_k, FULL, LINEAR, kv, h, TP_ATTN_K},
        {"attn_v", &l->attn_v, FULL, LINEAR, kv, h, TP_ATTN_V},
        {"attn_q_norm", &l->attn_q_norm, FULL, OPTIONAL_NORM, 1, d, 0},
        {"attn_k_norm", &l->attn_k_norm, FULL, OPTIONAL_NORM, 1, d, 0},
        {"attn_sub_norm", &l->attn_sub_norm, FULL, OPTIONAL_NORM, 1, q, 0},
        {"attn_output", &l->attn_output, FULL, LINEAR, h, q, TP_ATTN_OUTPUT},
        {"post_attention_norm", &l->post_attention_norm, EVERY, OPTIONAL_NORM, 1, h, 0},
        {"ffn_norm", &l->ffn_norm, EVERY, NORM, 1, h, 0},
        {"ffn_gate", &l->ffn_gate, EVERY, LINEAR, f, h, TP_FFN_GATE},
        {"ffn_up", &l->ffn_up, EVERY, LINEAR, f, h, TP_FFN_UP},
        {"ffn_sub_norm", &l->ffn_sub_norm, EVERY, OPTIONAL_NORM, 1, f, 0},
        {"ffn_down", &l->ffn_down, EVERY, LINEAR, h, f, TP_FFN_DOWN},
        {"post_ffw_norm", &l->post_ffw_norm, EVERY, OPTIONAL_NORM, 1, h, 0},
        {"attn_q_norm_in", &l->attn_q_norm_in, FULL, OPTIONAL_NORM, 1, h, 0},
        {"attn_k_norm_in", &l->attn_k_norm_in, FULL, OPTIONAL_NORM, 1, h, 0},
        {"attn_v_norm_in", &l->attn_v_norm_in, FULL, OPTIONAL_NORM, 1, h, 0},
        {"attn_output_norm_in", &l->attn_output_norm_in, FULL, OPTIONAL_NORM, 1, q, 0},
        {"ffn_gate_norm_in", &l->ffn_gate_norm_in, EVERY, OPTIONAL_NORM, 1, h, 0},
        {"ffn_up_norm_in", &l->ffn_up_norm_in, EVERY, OPTIONAL_NORM, 1, h, 0},
        {"ffn_down_norm_in", &l->ffn_down_norm_in, EVERY, OPTIONAL_NORM, 1, f, 0},
        {"attn_qkv", &l->attn_qkv, RECURRENT, LINEAR, mixed, h, TP_ATTN_QKV},
        {"attn_gate", &l->attn_gate, RECURRENT, LINEAR, v, h, TP_ATTN_GATE},
        {"ssm_alpha", &l->ssm_alpha, RECURRENT, GATE, heads, h, TP_SSM_ALPHA},
        {"ssm_beta", &l->ssm_beta, RECURRENT, GATE, heads, h, TP_SSM_BETA},
        {"ssm_conv1d", &l->ssm_conv1d, RECURRENT, FLOATS, mixed, hp->conv_taps, 0},
        {"ssm_a", &l->ssm_a, RECURRENT, FLOATS, 1, heads, 0},
        {"ssm_dt", &l->ssm_dt, RECURRENT, FLOATS, 1, heads, 0},
        {"ssm_norm", &l->ssm_norm, RECURRENT, NORM, 1, size, 0},
        {"ssm_out", &l->ssm_out, RECURRENT, LINEAR, h, v, TP_SSM_OUT},
    };
    if (!between(l->recurrent, 0, 1)) return fail(TP_ERR_ARGUMENT, index, "recurrent");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const int elsewhere = parts[i].of == (l->recurrent ? FULL : RECURRENT);
        const role r = elsewhere ? ABSENT : parts[i].r;
        int status = check(hp, parts[i].t, r, parts[i].rows, parts[i].cols);
        tp_linear *linear = &linears[parts[i].linear];
        if (!status && parts[i].t->rotated && hp->int8_activations) status = TP_ERR_ARGUMENT;
        if (!status && r == LINEAR && hp->int8_activations) status = check_scales(linear);
        if (status) return fail(status, index, parts[i].name);
    }
    return l->slides && !hp->inv_freq_sliding ? fail(TP_ERR_ARGUMENT, index, "slides") : TP_OK;
}

static float *copied(const float *from, int64_t n) {
    float *to = tp_alloc((size_t)n, sizeof *to);
    if (to) memcpy(to, from, (size_t)n * sizeof *to);
    return to;
}

static void list_linears(const tp_layer *l, tp_linear *linears /* (TP_LINEAR_COUNT) */) {
    static const tp_tensor absent;
    linears[TP_ATTN_Q] = (tp_linear){&l->attn_q, &l->attn_q_norm_in, 0};
    linears[TP_ATTN_K] = (tp_linear){&l->attn_k, &l->attn_k_norm_in, 0};
    linears[TP_ATTN_V] = (tp_linear){&l->attn_v, &l->attn_v_norm_in, 0};
    linears[TP_ATTN_OUTPUT] = (tp_linear){&l->attn_output, &l->attn_output_norm_in, 0};
    linears[TP_ATTN_QKV] = (tp_linear){&l->attn_qkv, &absent, 0};
    linears[TP_ATTN_GATE] = (tp_linear){&l->attn_gate, &absent, 0};
    linears[TP_SSM_ALPHA] = (tp_linear){&l->ssm_alpha, &absent, 0};
    linears[TP_SSM_BETA] = (tp_linear){&l->ssm_beta, &absent, 0};
    linears[TP_SSM_OUT] = (tp_linear){&l->ssm_out, &absent, 0};
    linears[TP_FFN_GATE] = (tp_linear){&l->ffn_gate, &l->ffn_gate_norm_in, 0};
    linears[TP_FFN_UP] = (tp_linear){&l->ffn_up, &l->ffn_up_norm_in, 0};
    linears[TP_FFN_DOWN] = (tp_linear){&l->ffn_down, &l->ffn_down_norm_in, 0};
}

static int check_model(const tp_model *m) {
    const tp_hparams *hp = &m->hp;
    int status = m->recurrent_layers ? check_recurrence(hp) : TP_OK;
    for (int i = 0; i < hp->layers && !status; i++) status = check_layer(m, i);
    if (status) return status;
    if ((status = check(hp, &m->token_embd, TABLE, hp->vocab_size, hp->hidden)))
        return fail(status, -1, "token_embd");
    if ((status = check(hp, &m->output_norm, NORM, 1, hp->hidden)))
        return fail(status, -1, "output_norm");
    return (status = check(hp, &m->output, TABLE, hp->vocab_size, hp->hidden))
               ? fail(status, -1, "output")
               : TP_OK;
}

/* The convolutions of all recurrent layers, taps side by side for neighbouring channels. */
static int turn_taps(tp_model *m) {
    const int64_t channels = tp_channels_of(&m->hp), taps = m->hp.conv_taps;
    if (!m->recurrent_layers) return TP_OK;
    m->taps = tp_alloc((uint64_t)m->recurrent_layers, (uint64_t)(taps * channels) * sizeof(float));
    if (!m->taps) return fail(TP_ERR_MEMORY, -1, "model");
    float *to = m->taps;
    for (int i = 0; i < m->hp.layers; i++) {
        if (!m->layers[i].recurrent) continue;
        const float *const from = m->layers[i].ssm_conv1d.data;
        for (int64_t tap = 0; tap < taps; tap++, to += channels)
            for (int64_t c = 0; c < channels; c++) to[c] = from[c * taps + tap];
    }
    return TP_OK;
}

/* Counts the layers of both kinds. */
static void count_places(tp_model *m) {
    int32_t counts[2] = {0, 0};
    for (int i = 0; i < m->hp.layers; i++) m->place[i] = counts[m->layers[i].recurrent != 0]++;
    m->recurrent_layers = counts[1];
    if (!counts[1]) /* they mean nothing, and are as wide as nothing */
        m->hp.key_heads = m->hp.value_heads = m->hp.state_size = m->hp.conv_taps = 0;
}

static TP_NOINLINE int model_new(const tp_hparams *hp, const tp_layer *layers,
                                 const tp_tensor *token_embd, const tp_tensor *output_norm,
                                 const tp_tensor *output, tp_model **out) {
    int status;
    place[0] = 0;
    if (!out) return fail(TP_ERR_ARGUMENT, -1, "out");
    *out = NULL;
    if ((status = check_hparams(hp))) return status;
    if (!layers) return fail(TP_ERR_ARGUMENT, -1, "layers");
    if (!token_embd) return fail(TP_ERR_ARGUMENT, -1, "token_embd");
    if (!output_norm) return fail(TP_ERR_ARGUMENT, -1, "output_norm");
    tp_model *m = tp_alloc(1, sizeof *m);
    if (!m) return fail(TP_ERR_MEMORY, -1, "model");
    m->layers = tp_alloc((size_t)hp->layers, sizeof *layers);
    m->linears = tp_alloc((size_t)hp->layers, sizeof *m->linears);
    m->place = tp_alloc((size_t)hp->layers, sizeof *m->place);
    m->inv_freq = copied(hp->inv_freq, hp->rotary_dim / 2);
    m->inv_freq_sliding =
        hp->inv_freq_sliding ? copied(hp->inv_freq_sliding, hp->rotary_dim / 2) : NULL;
    const int64_t signs = tp_count_signs(hp);
    m->signs = signs ? copied(hp->signs, signs) : NULL;
    if (!m->layers || !m->linears || !m->place || !m->inv_freq || (signs && !m->signs) ||
        (hp->inv_freq_sliding && !m->inv_freq_sliding)) {
        tp_model_free(m);
        return fail(TP_ERR_MEMORY, -1, "model");
    }
    m->hp = *hp;
    memcpy(m->layers, layers, (size_t)hp->layers * sizeof *layers);
    for (int i = 0; i < hp->layers; i++) list_linears(&m->layers[i], m->linears[i]);
    m->hp.inv_freq = m->inv_freq;
    m->hp.inv_freq_sliding = m->inv_freq_sliding;
    m->hp.signs = m->signs;
    count_places(m);
    m->token_embd = *token_embd;
    m->output_norm = *output_norm;
    m->output = output && output->data ? *output : *token_embd;
    if ((status = check_model(m)) || (status = turn_taps(m))) {
        tp_model_free(m);
        return status;
    }
    *out = m;
    return TP_OK;
}

int tp_model_new(const tp_hparams *hp, const tp_layer *layers, const tp_tensor *token_embd,
                 const tp_tensor *output_norm, const tp_tensor *output, tp_model **out) {
    const tp_fpenv before = tp_fpenv_enter(); /* checks compare scales */
    const int status = model_new(hp, layers, token_embd, output_norm, output, out);
    tp_fpenv_leave(before);
    return status;
}

void tp_model_free(tp_model *m) {
    if (!m) return;
    tp_free(m->layers);
    tp_free(m->linears);
    tp_free(m->inv_freq);
    tp_free(m->inv_freq_sliding);
    tp_free(m->signs);
    tp_free(m->place);
    tp_free(m->taps);
    tp_free(m);
}
