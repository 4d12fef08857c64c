/* The forward pass, one function per stage, in the order of the graph:
 *
 *   x = embd[token] * embedding_scale
 *   per layer: norm -> q, k, v -> (norm of each head) -> RoPE, cache -> attention -> (gate) ->
 *              (sub norm) -> attn_output -> (norm) -> x +=
 *              or norm -> qkv, gate, alpha, beta -> recurrence -> norm, gate -> ssm_out -> x +=
 *              norm -> gate, up -> act(gate) * up -> (sub norm) -> ffn_down -> (norm) -> x +=
 *   final norm -> head
 *
 * After its cache is filled, the last layer works only on the tokens whose states are wanted:
 * for a prompt on one, or on none.
 *
 * Where the model says so, what enters a linear is quantised to int8 first, after the linear's
 * own norm if it has one. What enters a rotated linear is transformed in the step that makes it,
 * once for all linears that share it. Each stage is a loop over tokens, heads or rows that goes to
 * the pool. No result depends on how the loop is cut. */
#include <string.h>

#include "angles.h"
#include "fpenv.h"
#include "kernels/common.h"
#include "session.h"

static void mark_plan(tp_session *s, tp_kernel_plan plan) {
    tp_mark(s, plan.kernel);
    if (plan.unpack) tp_mark(s, plan.unpack);
}

static void mark_floats(tp_session *s, const tp_tensor *w, int64_t n) {
    const int direct = tp_matvec_f32_fits(s->matvec_f32[w->layout], w, n);
    mark_plan(s, (direct ? s->matvec_f32 : s->dequantize)[w->layout]);
    if (!direct) tp_mark(s, s->head_f32);
}

static void trace(tp_session *s, const char *point, int layer, int dtype, int64_t rows,
                  int64_t cols, const void *data) {
    if (s->trace) s->trace(s->trace_user, point, layer, dtype, rows, cols, data);
}
static void trace_f32(tp_session *s, const char *point, int64_t cols, const float *data) {
    trace(s, point, s->layer_index, TP_DTYPE_F32, s->n, cols, data);
}

/* ---- stages over tokens ---- */

static void turn(float *c /* (2, half) */, float position, const float *inv_freq, int64_t half,
                 float factor) {
    for (int64_t i = 0; i < half; i++) {
        tp_cos_sin(position * inv_freq[i], &c[i], &c[half + i]);
        c[i] *= factor;
        c[half + i] *= factor;
    }
}

static void embed_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const tp_hparams *hp = &s->model->hp;
    const int64_t dim = hp->rotary_dim;
    const tp_tensor *embd = &s->model->token_embd;
    const float *const signs = tp_signs_of(s->model, hp->hidden);
    const int ternary = tp_is_ternary(embd->layout);
    const tp_ternary parts = ternary ? tp_ternary_of(embd) : (tp_ternary){.half = 0};
    for (int64_t t = begin; t < end; t++) {
        float *x = s->x + t * hp->hidden;
        if (ternary)
            tp_dequantize_row(s->dequantize[embd->layout], &parts, s->rows[t].token, x,
                              s->scratch + (size_t)thread * s->scratch_bytes);
        else tp_tensor_row(embd, s->rows[t].token, x);
        if (embd->rotated) s->hadamard->hadamard(x, NULL, signs, hp->hidden, hp->rotation_block, x);
        for (int64_t i = 0; i < hp->hidden; i++) x[i] *= hp->embedding_scale;
        const float position = (float)s->rows[t].position;
        turn(s->cos_sin[0] + t * dim, position, hp->inv_freq, dim / 2, hp->rope_factor);
        if (hp->inv_freq_sliding)
            turn(s->cos_sin[1] + t * dim, position, hp->inv_freq_sliding, dim / 2, 1.0f);
    }
}

/* Adds the output of a block to the residual stream. */
static void add_token(const tp_session *s, int64_t t, const tp_tensor *post_norm) {
    const tp_hparams *hp = &s->model->hp;
    float *restrict x = s->x + t * hp->hidden, *restrict y = s->add + t * hp->hidden;
    if (post_norm->data) s->rmsnorm->rmsnorm(y, post_norm->data, hp->hidden, hp->norm_eps, y);
    for (int64_t i = 0; i < hp->hidden; i++) x[i] += y[i] * hp->residual_scale;
}

/* Makes a token's row. */
typedef void row_fn(tp_session *s, int64_t token, float *row);

/* One step towards the input of linears. */
typedef struct step {
    tp_session *s;
    const tp_tensor *add_after; /* not NULL: s->add first joins s->x, after this norm, if present */
    const float *from;          /* (n, cols); not if there is `make` */
    row_fn *make;
    float *gate;           /* (n, cols): act(gate) * from enters; NULL: from enters */
    const tp_tensor *norm; /* (1, cols) or absent */
    float eps;
    float *to; /* (n, cols), or NULL if only the codes or the rotated rows are wanted */
    int64_t cols;
    int rotate;   /* 1: into s->rotated as well */
    int quantize; /* 1: into s->acts as well */
} step;

/* All parts of the step are done to a token's row while it is in cache. */
static void step_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    const step *p = ctx;
    tp_session *s = p->s;
    const int64_t cols = p->cols, padded = tp_padded_cols(cols);
    float *const row = (float *)(void *)(s->scratch + (size_t)thread * s->scratch_bytes);
    const float *const signs = p->rotate ? tp_signs_of(s->model, cols) : NULL;
    for (int64_t t = begin; t < end; t++) {
        float *const to = p->to ? p->to + t * cols : row;
        if (p->make) p->make(s, t, to);
        const float *x = p->make ? to : p->from + t * cols;
        if (p->add_after) add_token(s, t, p->add_after);
        if (p->gate) {
            float *const product =
                s->trace ? p->gate + t * cols : to; /* where the trace looks for it */
            s->glu->glu(p->gate + t * cols, x, cols, s->model->hp.activation, product);
            x = product;
        }
        if (p->norm->data) {
            s->rmsnorm->rmsnorm(x, p->norm->data, cols, p->eps, to);
            x = to;
        }
        if (p->to && x != to) memcpy(to, x, (size_t)cols * sizeof(float));
        if (p->rotate)
            s->hadamard->hadamard(x, signs, NULL, cols, s->model->hp.rotation_block,
                                  s->rotated + t * cols);
        if (!p->quantize) continue;
        int8_t *q = s->acts.q + t * padded;
        s->quantize->quantize(x, cols, q, &s->acts.s[t], &s->acts.sum[t]);
        memset(q + cols, 0, (size_t)(padded - cols));
    }
}

static void take_step(const step *p) {
    tp_session *s = p->s;
    tp_pool_run(s->pool, step_tokens, (void *)(uintptr_t)p, s->n, 1);
    if (p->norm->data || (p->add_after && p->add_after->data)) tp_mark(s, s->rmsnorm);
    if (p->gate) tp_mark(s, s->glu);
    if (p->rotate) tp_mark(s, s->hadamard);
    if (p->quantize) tp_mark(s, s->quantize);
}

/* ---- linears ---- */

typedef struct point {
    const char *floats, *codes, *scales;
} point; /* names of trace points */
#define POINT(name) \
    { name, name ".q8", name ".scale" }

typedef struct product {
    const tp_linear *linear;
    float *y;
    point own; /* its input's names where it has a norm of its own */
    int gated; /* 1: y = glu(next product, this one), and the next one's y is not written */
} product;

static void trace_codes(tp_session *s, point at, int64_t cols) {
    if (!s->trace) return;
    const int64_t padded = tp_padded_cols(cols);
    int8_t *plain = s->acts.ordered; /* products do not use it yet */
    for (int64_t t = 0; t < s->n; t++)
        memcpy(plain + t * cols, s->acts.q + t * padded, (size_t)cols);
    trace(s, at.codes, s->layer_index, TP_DTYPE_INT8, s->n, cols, plain);
    trace(s, at.scales, s->layer_index, TP_DTYPE_F32, s->n, 1, s->acts.s);
}

static tp_kernel_plan plan_for(const tp_session *s, const tp_linear *l) {
    const tp_kernel_plan few = tp_matvec_for(s, l);
    return s->n > few.kernel->few_tokens ? s->matmul[l->w->layout] : few;
}

static void run_floats(tp_session *s, const tp_tensor *w, const float *x, float *y) {
    if (!tp_is_ternary(w->layout)) {
        tp_mark(s, s->gates[w->layout]);
        tp_head_run(s->pool, s->gates[w->layout], NULL, w, x, s->n, NULL, y);
        return;
    }
    mark_floats(s, w, s->n);
    tp_linear_float_run(s->pool, s->dequantize[w->layout], s->matvec_f32[w->layout], s->head_f32, w,
                        w->rotated ? s->rotated : x, s->n, s->scratch, s->scratch_bytes, y);
}

/* y = w * x for linears that share their input: the codes in s->acts, or the floats x, which are in
 * s->rotated too if one needs it. */
static void run_products(tp_session *s, const product *group, int count, const float *x) {
    tp_linear_job jobs[4];
    for (int i = 0; i < count; i++) {
        const tp_tensor *w = group[i].linear->w;
        if (s->model->hp.int8_activations) {
            jobs[i] = (tp_linear_job){.w = w,
                                      .plan = plan_for(s, group[i].linear),
                                      .y = i > 0 && group[i - 1].gated ? NULL : group[i].y};
            if (group[i].gated) {
                jobs[i].glu = s->glu;
                jobs[i].activation = s->model->hp.activation;
                tp_mark(s, s->glu);
            }
            mark_plan(s, jobs[i].plan);
            continue;
        }
        run_floats(s, w, x, group[i].y);
    }
    if (!s->model->hp.int8_activations) return;
    tp_mark(s, s->rescale);
    tp_linears_run(s->pool, s->rescale, jobs, count, &s->acts, s->n, s->scratch, s->scratch_bytes);
}

/* A step into s->h, then the linears that read it: all at once, or each after a norm of its own. */
static void run_linears(tp_session *s, step in, point at, const product *group, int count) {
    const tp_hparams *hp = &s->model->hp;
    int own = 0, rotated = 0, plain = 0;
    for (int i = 0; i < count; i++) {
        own |= group[i].linear->norm_in->data != NULL;
        rotated |= group[i].linear->w->rotated;
        plain |= !group[i].linear->w->rotated;
    }
    in.s = s;
    in.eps = hp->norm_eps;
    in.quantize = hp->int8_activations && !own;
    in.rotate = rotated && !own;
    in.to = own || s->trace || (plain && !in.quantize) ? s->h : NULL;
    take_step(&in);
    if (in.gate) trace_f32(s, "ffn_mul", in.cols, in.gate);
    trace_f32(s, at.floats, in.cols, s->h);
    if (!own) {
        if (in.quantize) trace_codes(s, at, in.cols);
        run_products(s, group, count, s->h);
        return;
    }
    for (int i = 0; i < count; i++) {
        const step norm = {.s = s,
                           .from = s->h,
                           .norm = group[i].linear->norm_in,
                           .eps = hp->projection_norm_eps,
                           .to = s->normed,
                           .cols = in.cols,
                           .rotate = group[i].linear->w->rotated,
                           .quantize = hp->int8_activations};
        take_step(&norm);
        trace_f32(s, group[i].own.floats, in.cols, s->normed);
        if (norm.quantize) trace_codes(s, group[i].own, in.cols);
        run_products(s, &group[i], 1, s->normed);
    }
}

/* ---- the layers and the head ---- */

static void add_down(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    (void)thread;
    for (int64_t t = begin; t < end; t++) add_token(s, t, &s->layer->post_ffw_norm);
}

/* Moves n rows of a matrix towards its beginning. */
static void move_rows(float *x, int64_t cols, int64_t from, int64_t to, int64_t n) {
    memmove(x + to * cols, x + from * cols, (size_t)(n * cols) * sizeof(float));
}

/* Drops all tokens but the wanted ones, which are the last of each run. */
static void keep_wanted(tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t q_cols = (int64_t)hp->heads * hp->head_dim, values = tp_values_of(hp);
    int64_t rows = 0, runs = 0;
    for (int64_t i = 0; i < s->run_count; i++) {
        tp_run r = s->runs[i];
        if (r.wanted == 0) continue;
        const int64_t gone = r.n - r.wanted;
        move_rows(s->x, hp->hidden, r.row + gone, rows, r.wanted);
        if (s->layer->recurrent) {
            move_rows(s->delta, values, r.row + gone, rows, r.wanted);
            move_rows(s->z, values, r.row + gone, rows, r.wanted);
        } else {
            move_rows(s->q, q_cols, r.row + gone, rows, r.wanted);
            if (s->q_gate) move_rows(s->q_gate, 2 * q_cols, r.row + gone, rows, r.wanted);
        }
        r.row = rows;
        r.n = r.wanted;
        r.position += gone;
        s->runs[runs++] = r;
        rows += r.n;
    }
    s->n = rows;
    s->run_count = runs;
}

/* Whether the product of gate and up also makes act(gate) * up. For several tokens both would
 * otherwise leave the cache before they are read again. */
static int multiplies_at_once(const tp_session *s) {
    const tp_linear *gate = &s->linears[TP_FFN_GATE], *up = &s->linears[TP_FFN_UP];
    const tp_kernel_plan gate_plan = plan_for(s, gate), up_plan = plan_for(s, up);
    return s->model->hp.int8_activations && s->n > 1 && !s->trace && !gate->norm_in->data &&
           !up->norm_in->data && gate_plan.kernel == up_plan.kernel &&
           gate_plan.unpack == up_plan.unpack;
}

/* In the last layer, once all that later tokens need is stored: returns 0 if no token is wanted. */
static int go_on(tp_session *s) {
    if (s->layer_index == s->model->hp.layers - 1 && !s->trace) keep_wanted(s);
    return s->n > 0;
}

static int run_attention(tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    const tp_layer *l = s->layer;
    const tp_linear *linears = s->linears;
    const int64_t hidden = hp->hidden, q_cols = (int64_t)hp->heads * hp->head_dim,
                  kv_cols = (int64_t)hp->kv_heads * hp->head_dim;
    float *const q = hp->gated_attention ? s->q_gate : s->q;
    const product qkv[] = {{&linears[TP_ATTN_Q], q, POINT("attn_q_in"), 0},
                           {&linears[TP_ATTN_K], s->k, POINT("attn_k_in"), 0},
                           {&linears[TP_ATTN_V], s->v, POINT("attn_v_in"), 0}};
    run_linears(s, (step){.from = s->x, .norm = &l->attn_norm, .cols = hidden},
                (point)POINT("attn_in"), qkv, 3);
    trace_f32(s, "attn_q", q_cols * (1 + hp->gated_attention), q);
    trace_f32(s, "attn_k", kv_cols, s->k);
    trace_f32(s, "attn_v", kv_cols, s->v);
    tp_rope_and_store(s);
    if (!go_on(s)) return 0;
    trace_f32(s, "attn_q_rope", q_cols, s->q);
    trace_f32(s, "attn_k_rope", kv_cols, s->k);
    tp_attention_run(s);
    trace_f32(s, "attn_out", q_cols, s->mixed);
    const product out = {&linears[TP_ATTN_OUTPUT], s->add, POINT("attn_sub_norm"), 0};
    run_linears(s,
                (step){.from = s->mixed,
                       .make = hp->gated_attention ? tp_gated_row : NULL,
                       .norm = &l->attn_sub_norm,
                       .cols = q_cols},
                (point)POINT("attn_sub_norm"), &out, 1);
    trace_f32(s, "attn_output", hidden, s->add);
    return 1;
}

static int run_delta_net(tp_session *s) {
    static const tp_tensor absent;
    const tp_hparams *hp = &s->model->hp;
    const tp_linear *linears = s->linears;
    const int64_t hidden = hp->hidden, values = tp_values_of(hp);
    const product in[] = {{&linears[TP_ATTN_QKV], s->channels, POINT("attn_qkv_in"), 0},
                          {&linears[TP_ATTN_GATE], s->z, POINT("attn_gate_in"), 0},
                          {&linears[TP_SSM_ALPHA], s->alpha, POINT("ssm_alpha_in"), 0},
                          {&linears[TP_SSM_BETA], s->beta, POINT("ssm_beta_in"), 0}};
    run_linears(s, (step){.from = s->x, .norm = &s->layer->attn_norm, .cols = hidden},
                (point)POINT("attn_in"), in, 4);
    trace_f32(s, "attn_qkv", tp_channels_of(hp), s->channels);
    trace_f32(s, "attn_gate", values, s->z);
    trace_f32(s, "ssm_alpha", hp->value_heads, s->alpha);
    trace_f32(s, "ssm_beta", hp->value_heads, s->beta);
    tp_delta_net_run(s);
    if (!go_on(s)) return 0;
    trace_f32(s, "delta_out", values, s->delta);
    const product out = {&linears[TP_SSM_OUT], s->add, POINT("ssm_out_in"), 0};
    run_linears(s, (step){.make = tp_delta_net_row, .norm = &absent, .cols = values},
                (point)POINT("ssm_out_in"), &out, 1);
    tp_mark(s, s->rmsnorm);
    tp_mark(s, s->glu);
    trace_f32(s, "attn_output", hidden, s->add);
    return 1;
}

static void run_ffn(tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    const tp_layer *l = s->layer;
    const tp_linear *linears = s->linears;
    const int64_t hidden = hp->hidden;
    const int gated = multiplies_at_once(s);
    const product up_gate[] = {{&linears[TP_FFN_UP], s->up, POINT("ffn_up_in"), gated},
                               {&linears[TP_FFN_GATE], s->gate, POINT("ffn_gate_in"), 0}};
    const step into = {
        .add_after = &l->post_attention_norm, .from = s->x, .norm = &l->ffn_norm, .cols = hidden};
    run_linears(s, into, (point)POINT("ffn_in"), up_gate, 2);
    trace_f32(s, "attn_residual", hidden, s->x);
    trace_f32(s, "ffn_gate", hp->ffn, s->gate);
    trace_f32(s, "ffn_up", hp->ffn, s->up);
    const product down = {&linears[TP_FFN_DOWN], s->add, POINT("ffn_down_in"), 0};
    run_linears(s,
                (step){.from = s->up,
                       .gate = gated ? NULL : s->gate,
                       .norm = &l->ffn_sub_norm,
                       .cols = hp->ffn},
                (point)POINT("ffn_down_in"), &down, 1);
    trace_f32(s, "ffn_down", hidden, s->add);
    tp_pool_run(s->pool, add_down, s, s->n, 1);
    trace_f32(s, "layer_out", hidden, s->x);
}

static void run_head(tp_session *s, float *states, int64_t n, float *logits) {
    const tp_hparams *hp = &s->model->hp;
    const tp_tensor *w = &s->model->output;
    const float *const signs = tp_signs_of(s->model, hp->hidden);
    for (int64_t i = 0; i < n * hp->hidden; i++) states[i] *= hp->logit_scale;
    if (w->rotated) tp_mark(s, s->hadamard);
    for (int64_t t = 0; w->rotated && t < n; t++) {
        float *const row = states + t * hp->hidden;
        s->hadamard->hadamard(row, signs, NULL, hp->hidden, hp->rotation_block, row);
    }
    if (!tp_is_ternary(w->layout)) tp_mark(s, s->head);
    if (tp_is_ternary(w->layout)) {
        mark_floats(s, w, n);
        tp_linear_float_run(s->pool, s->dequantize[w->layout], s->matvec_f32[w->layout], s->head, w,
                            states, n, s->scratch, s->scratch_bytes, logits);
        return;
    }
    if (s->acts16) tp_mark(s, s->quantize16);
    tp_head_run(s->pool, s->head, s->quantize16, w, states, n, s->acts16, logits);
}

TP_NOINLINE void tp_begin_batch(tp_session *s) {
    const tp_model *m = s->model;
    tp_recurrence_begin(s);
    s->layer_index = -1; /* after a replay, which goes through the layers */
    tp_pool_run(s->pool, embed_tokens, s, s->n, 4);
    if (m->token_embd.rotated) tp_mark(s, s->hadamard);
    if (tp_is_ternary(m->token_embd.layout)) mark_plan(s, s->dequantize[m->token_embd.layout]);
    trace_f32(s, "embd", m->hp.hidden, s->x);
    s->layer_index = 0;
}

TP_NOINLINE void tp_run_layers(tp_session *s, int count) {
    const tp_model *m = s->model;
    for (; count > 0 && s->layer_index < m->hp.layers; count--, s->layer_index++) {
        s->layer = &m->layers[s->layer_index];
        s->linears = m->linears[s->layer_index];
        if (s->layer->recurrent ? run_delta_net(s) : run_attention(s)) run_ffn(s);
    }
}

TP_NOINLINE void tp_end_batch(tp_session *s, tp_output kind, float *out) {
    const tp_model *m = s->model;
    const int64_t hidden = m->hp.hidden;
    if (s->trace) keep_wanted(s);
    if (s->n == 0) return;
    float *const states = kind == TP_OUTPUT_HIDDEN ? out : s->h;
    for (int64_t t = 0; t < s->n; t++)
        s->rmsnorm->rmsnorm(s->x + t * hidden, m->output_norm.data, hidden, m->hp.norm_eps,
                            states + t * hidden);
    tp_mark(s, s->rmsnorm);
    trace(s, "final_norm", -1, TP_DTYPE_F32, s->n, hidden, states);
    if (kind == TP_OUTPUT_HIDDEN) return;
    run_head(s, states, s->n, out);
}
