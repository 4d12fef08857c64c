/* Gated DeltaNet, of transformers' Qwen3_5GatedDeltaNet: a causal convolution, and a recurrence
 * that keeps a matrix of state_size keys by state_size values for each value head:
 *
 *   q, k, v = silu(convolution of s->channels); q, k to unit length; q /= sqrt(state_size)
 *   decay = exp(a softplus(alpha + dt)); beta = sigmoid(beta)
 *   per token: S = decay S; u = beta (v - S^T k); S = S + k u^T; out = S^T q
 *
 * Prompts go token by token too. Chunks of tokens would need fewer reads of S by matrix products,
 * but other roundings, which would depend on where a batch is cut. So a piece of work is a few
 * columns of one S, which do not depend on the others: they stay in L1 while all tokens of a run go
 * over them, and S is read and written once. */
#include <string.h>

#include "session.h"
#include "softplus.h"

/* Runs of the layer at work. */
typedef struct work {
    tp_session *s;
    const tp_run *runs; /* (count) */
    int64_t count;
} work;

/* Where the layer at work has its part of what a run points to. */
static int64_t states_at(const tp_session *s) {
    return s->model->place[s->layer_index] * tp_state_floats(&s->model->hp);
}
static int64_t inputs_at(const tp_session *s) {
    return s->model->place[s->layer_index] * TP_KEPT * tp_input_floats(&s->model->hp);
}

/* ---- what enters the recurrence ---- */

/* A part of the work: the channels of a head of queries, of keys or of values, in this order. */
static int64_t parts_of(const tp_hparams *hp) { return 2 * hp->key_heads + hp->value_heads; }

/* Keeps what enters, before it is overwritten. */
static void keep_inputs(const tp_session *s, const tp_run *r, int64_t part) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t size = hp->state_size, channels = tp_channels_of(hp), heads = hp->value_heads,
                  head = part - 2 * hp->key_heads;
    float *to = r->inputs ? r->inputs + inputs_at(s) : NULL;
    for (int64_t t = r->first_kept; to && t < r->n; t++, to += tp_input_floats(hp)) {
        const int64_t row = r->row + t;
        memcpy(to + part * size, s->channels + row * channels + part * size,
               (size_t)size * sizeof(float));
        if (head < 0) continue;
        to[channels + head] = s->alpha[row * heads + head];
        to[channels + heads + head] = s->beta[row * heads + head];
    }
}

static void copy_window(const tp_session *s, float *to, const float *from, int64_t part) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t size = hp->state_size, channels = tp_channels_of(hp);
    for (int64_t i = 0; i + 1 < hp->conv_taps; i++)
        memcpy(to + i * channels + part * size, from + i * channels + part * size,
               (size_t)size * sizeof(float));
}

static void convolve(const tp_session *s, const tp_run *r, int64_t part) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t size = hp->state_size, channels = tp_channels_of(hp), at = part * size;
    float *const window = r->states + states_at(s);
    tp_conv job = {.x = s->channels + r->row * channels + at,
                   .weights = s->model->taps +
                              s->model->place[s->layer_index] * hp->conv_taps * channels + at,
                   .window = window + at,
                   .tokens = r->n,
                   .channels = size,
                   .taps = hp->conv_taps,
                   .stride = channels};
    if (r->from != r->states) copy_window(s, window, r->from + states_at(s), part);
    if (r->checkpoint) {
        job.tokens = r->split;
        s->conv->conv(&job);
        copy_window(s, r->checkpoint + states_at(s), window, part);
        job.x += r->split * channels;
        job.tokens = r->n - r->split;
    }
    s->conv->conv(&job);
}

/* x / sqrt(sum of x^2 + 1e-6), by the kernel of norms, which takes the mean. */
static void to_unit_length(const tp_session *s, const tp_run *r, int64_t part) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t size = hp->state_size, channels = tp_channels_of(hp);
    const float *const factors = s->unit + (part < hp->key_heads ? 0 : size);
    for (int64_t t = r->row; t < r->row + r->n; t++) {
        float *const x = s->channels + t * channels + part * size;
        s->rmsnorm->rmsnorm(x, factors, size, 1e-6f / (float)size, x);
    }
}

static void find_gates(const tp_session *s, const tp_run *r, int64_t head) {
    const int64_t heads = s->model->hp.value_heads;
    const float a = ((const float *)s->layer->ssm_a.data)[head],
                dt = ((const float *)s->layer->ssm_dt.data)[head];
    for (int64_t t = r->row; t < r->row + r->n; t++) {
        float *const alpha = s->alpha + t * heads + head, *const beta = s->beta + t * heads + head;
        *alpha = tp_exp(a * tp_softplus(*alpha + dt));
        *beta = 1.0f / (1.0f + tp_exp(-*beta));
    }
}

static void prepare(void *ctx, int thread, int64_t begin, int64_t end) {
    const work *w = ctx;
    const tp_hparams *hp = &w->s->model->hp;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const tp_run *r = &w->runs[i / parts_of(hp)];
        const int64_t part = i % parts_of(hp), head = part - 2 * hp->key_heads;
        keep_inputs(w->s, r, part);
        convolve(w->s, r, part);
        if (head < 0) to_unit_length(w->s, r, part);
        else find_gates(w->s, r, head);
    }
}

/* ---- the recurrence ---- */

static void walk_slice(const tp_session *s, const tp_run *r, int64_t head, int64_t slice) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t size = hp->state_size, keys = tp_keys_of(hp), channels = tp_channels_of(hp),
                  values = tp_values_of(hp), floats = size * TP_COLUMNS,
                  at =
                      states_at(s) + tp_window_floats(hp) + (head * tp_slices(hp) + slice) * floats,
                  first = slice * TP_COLUMNS, key_head = head % hp->key_heads * size;
    const float *const x = s->channels + r->row * channels;
    float *const state = r->states + at;
    tp_delta_rule job = {.q = x + key_head,
                         .k = x + keys + key_head,
                         .v = x + 2 * keys + head * size + first,
                         .decay = s->alpha + r->row * hp->value_heads + head,
                         .beta = s->beta + r->row * hp->value_heads + head,
                         .state = state,
                         .out = s->delta + r->row * values + head * size + first,
                         .tokens = r->n,
                         .size = size,
                         .columns = size - first < TP_COLUMNS ? size - first : TP_COLUMNS,
                         .stride = channels,
                         .heads = hp->value_heads,
                         .out_stride = values};
    if (r->from != r->states) memcpy(state, r->from + at, (size_t)floats * sizeof(float));
    if (r->checkpoint) {
        job.tokens = r->split;
        s->delta_rule->delta_rule(&job);
        memcpy(r->checkpoint + at, state, (size_t)floats * sizeof(float));
        job.q += r->split * channels;
        job.k += r->split * channels;
        job.v += r->split * channels;
        job.decay += r->split * hp->value_heads;
        job.beta += r->split * hp->value_heads;
        job.out += r->split * values;
        job.tokens = r->n - r->split;
    }
    s->delta_rule->delta_rule(&job);
}

static void walk(void *ctx, int thread, int64_t begin, int64_t end) {
    const work *w = ctx;
    const tp_hparams *hp = &w->s->model->hp;
    const int64_t slices = tp_slices(hp), pieces = hp->value_heads * slices;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        walk_slice(w->s, &w->runs[i / pieces], i % pieces / slices, i % slices);
}

static void run_layer(work w) {
    const tp_hparams *hp = &w.s->model->hp;
    tp_pool_run(w.s->pool, prepare, &w, w.count * parts_of(hp), 1);
    tp_pool_run(w.s->pool, walk, &w, w.count * hp->value_heads * tp_slices(hp), 1);
}

void tp_delta_net_run(tp_session *s) {
    run_layer((work){s, s->runs, s->run_count});
    tp_mark(s, s->conv);
    tp_mark(s, s->delta_rule);
}

void tp_delta_net_row(tp_session *s, int64_t token, float *row) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t size = hp->state_size, values = tp_values_of(hp), keys = hp->key_heads;
    const int grouped = hp->grouped_heads && s->layer->ssm_out.rotated;
    for (int64_t p = 0; p < hp->value_heads; p++) {
        const int64_t at = token * values + p * size,
                      place = grouped ? p % keys * (hp->value_heads / keys) + p / keys : p;
        float *const to = row + place * size;
        s->rmsnorm->rmsnorm(s->delta + at, s->layer->ssm_norm.data, size, hp->norm_eps, to);
        s->glu->glu(s->z + at, to, size, TP_ACT_SILU, to);
    }
}

/* ---- replay ---- */

static void take_inputs(tp_session *s, const float *inputs, int64_t count) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t channels = tp_channels_of(hp), heads = hp->value_heads;
    const float *from = inputs + inputs_at(s);
    for (int64_t t = 0; t < count; t++, from += tp_input_floats(hp)) {
        memcpy(s->channels + t * channels, from, (size_t)channels * sizeof(float));
        memcpy(s->alpha + t * heads, from + channels, (size_t)heads * sizeof(float));
        memcpy(s->beta + t * heads, from + channels + heads, (size_t)heads * sizeof(float));
    }
}

void tp_delta_net_replay(tp_session *s, float *to, const float *from, const float *inputs,
                         int64_t count) {
    const tp_run run = {.n = count, .states = to, .from = from};
    for (s->layer_index = 0; s->layer_index < s->model->hp.layers; s->layer_index++) {
        s->layer = &s->model->layers[s->layer_index];
        if (!s->layer->recurrent) continue;
        take_inputs(s, inputs, count);
        run_layer((work){s, &run, 1});
    }
}
