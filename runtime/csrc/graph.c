/* The forward pass, one function per stage in the order of the graph:
 *
 *   x = embd[token] * embedding_scale
 *   per layer: norm -> q, k, v -> (norm of each head) -> RoPE, cache -> attention -> (sub norm) -> attn_output -> (norm) -> x +=
 *              norm -> gate, up -> act(gate) * up -> (sub norm) -> ffn_down -> (norm) -> x +=
 *   final norm -> head
 *
 * Behind its cache the last layer works on those tokens alone whose states are wanted: of a prompt one, or none.
 *
 * What enters a linear is quantised to int8 first where the model says so, behind a norm of the linear's own if it has one.
 * Each stage is a loop over tokens, heads or rows given to the pool. Nothing depends on how it is cut. */
#include <string.h>

#include "angles.h"
#include "fpenv.h"
#include "kernels/common.h"
#include "session.h"

static void mark(tp_session *s, const tp_kernel *k) { s->used[tp_kernel_index(k)] = 1; }
static void mark_way(tp_session *s, tp_way way) {
    mark(s, way.kernel);
    if (way.unpack) mark(s, way.unpack);
}

static void mark_floats(tp_session *s, const tp_tensor *w, int64_t n) {
    const int direct = tp_matvec_f32_fits(s->matvec_f32[w->layout], w, n);
    mark_way(s, (direct ? s->matvec_f32 : s->dequantize)[w->layout]);
    if (!direct) mark(s, s->head_f32);
}

static void trace(tp_session *s, const char *point, int layer, int dtype, int64_t rows, int64_t cols, const void *data) {
    if (s->trace) s->trace(s->trace_user, point, layer, dtype, rows, cols, data);
}
static void trace_f32(tp_session *s, const char *point, int64_t cols, const float *data) {
    trace(s, point, s->layer_index, TP_DTYPE_F32, s->n, cols, data);
}

/* ---- stages over tokens ---- */

static void turn(float *c /* (2, half) */, float position, const float *inv_freq, int64_t half, float factor) {
    for (int64_t i = 0; i < half; i++) {
        tp_cos_sin(position * inv_freq[i], &c[i], &c[half + i]);
        c[i] *= factor;
        c[half + i] *= factor;
    }
}

static void embed_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const tp_hparams *hp = &s->model->hp;
    const int64_t dim = hp->head_dim;
    const tp_tensor *embd = &s->model->token_embd;
    const int ternary = tp_is_ternary(embd->layout);
    const tp_ternary parts = ternary ? tp_ternary_of(embd) : (tp_ternary){.half = 0};
    for (int64_t t = begin; t < end; t++) {
        float *x = s->x + t * hp->hidden;
        if (ternary) tp_dequantize_row(s->dequantize[embd->layout], &parts, s->tokens[t], x, s->scratch + (size_t)thread * s->scratch_bytes);
        else tp_tensor_row(embd, s->tokens[t], x);
        for (int64_t i = 0; i < hp->hidden; i++) x[i] *= hp->embedding_scale;
        turn(s->cos_sin[0] + t * dim, (float)(s->n_past + t), hp->inv_freq, dim / 2, hp->rope_factor);
        if (hp->inv_freq_sliding) turn(s->cos_sin[1] + t * dim, (float)(s->n_past + t), hp->inv_freq_sliding, dim / 2, 1.0f);
    }
}

/* What a block gives joins the residual stream. */
static void add_token(const tp_session *s, int64_t t, const tp_tensor *post_norm) {
    const tp_hparams *hp = &s->model->hp;
    float *restrict x = s->x + t * hp->hidden, *restrict y = s->add + t * hp->hidden;
    if (post_norm->data) s->rmsnorm->rmsnorm(y, post_norm->data, hp->hidden, hp->norm_eps, y);
    for (int64_t i = 0; i < hp->hidden; i++) x[i] += y[i] * hp->residual_scale;
}

typedef struct step {           /* towards what enters linears */
    tp_session *s;
    const tp_tensor *add_behind;    /* s->add joins s->x first, behind this norm (which may be absent); NULL: it does not */
    const float *from;              /* (n, cols) */
    float *gate;                    /* (n, cols) act(gate) * from is what enters (traced: and what gate becomes); NULL: from itself */
    const tp_tensor *norm;          /* (1, cols) or absent */
    float eps;
    float *to;                      /* (n, cols), or NULL if only the codes are wanted */
    int64_t cols;
    int quantize;                   /* into s->acts as well */
} step;

/* A token's row stays at hand from one part of the step to the next: those of all tokens would come from far away each time. */
static void step_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    const step *p = ctx;
    tp_session *s = p->s;
    const int64_t cols = p->cols, padded = tp_padded_cols(cols);
    float *const row = (float *)(void *)(s->scratch + (size_t)thread * s->scratch_bytes);
    for (int64_t t = begin; t < end; t++) {
        float *const to = p->to ? p->to + t * cols : row;
        const float *x = p->from + t * cols;
        if (p->add_behind) add_token(s, t, p->add_behind);
        if (p->gate) {
            float *const product = s->trace ? p->gate + t * cols : to;
            s->glu->glu(p->gate + t * cols, x, cols, s->model->hp.activation, product);
            x = product;
        }
        if (p->norm->data) {
            s->rmsnorm->rmsnorm(x, p->norm->data, cols, p->eps, to);
            x = to;
        }
        if (p->to && x != to) memcpy(to, x, (size_t)cols * sizeof(float));
        if (!p->quantize) continue;
        int8_t *q = s->acts.q + t * padded;
        s->quantize->quantize(x, cols, q, &s->acts.s[t], &s->acts.sum[t]);
        memset(q + cols, 0, (size_t)(padded - cols));
    }
}

static void take_step(const step *p) {
    tp_session *s = p->s;
    tp_pool_run(s->pool, step_tokens, (void *)(uintptr_t)p, s->n, 1);
    if (p->norm->data || (p->add_behind && p->add_behind->data)) mark(s, s->rmsnorm);
    if (p->gate) mark(s, s->glu);
    if (p->quantize) mark(s, s->quantize);
}

/* ---- linears ---- */

typedef struct point { const char *floats, *codes, *scales; } point;    /* names of trace points */
#define POINT(name) {name, name ".q8", name ".scale"}

typedef struct linear {
    const tp_tensor *w, *own_norm;
    float *y;
    point own;
    int gated;      /* y = glu(what the next linear gives, what this one does); the next one's y is not written */
} linear;

static void trace_codes(tp_session *s, point at, int64_t cols) {
    if (!s->trace) return;
    const int64_t padded = tp_padded_cols(cols);
    int8_t *plain = s->acts.arranged;       /* not in use before the product */
    for (int64_t t = 0; t < s->n; t++) memcpy(plain + t * cols, s->acts.q + t * padded, (size_t)cols);
    trace(s, at.codes, s->layer_index, TP_DTYPE_INT8, s->n, cols, plain);
    trace(s, at.scales, s->layer_index, TP_DTYPE_F32, s->n, 1, s->acts.s);
}

static tp_way way_of(const tp_session *s, const tp_tensor *w) {
    return (s->n > TP_FEW_TOKENS ? s->matmul : w->reserved ? s->plain_matvec : s->matvec)[w->layout];
}

/* y = w * x for linears that share their input: the codes in s->acts, or the floats x. */
static void products(tp_session *s, const linear *group, int count, const float *x) {
    tp_linear_job jobs[3];
    for (int i = 0; i < count; i++) {
        const tp_tensor *w = group[i].w;
        if (s->model->hp.int8_activations) {
            jobs[i] = (tp_linear_job){.w = w, .way = way_of(s, w), .y = i > 0 && group[i - 1].gated ? NULL : group[i].y};
            if (group[i].gated) {
                jobs[i].glu = s->glu;
                jobs[i].activation = s->model->hp.activation;
                mark(s, s->glu);
            }
            mark_way(s, jobs[i].way);
            continue;
        }
        mark_floats(s, w, s->n);
        tp_linear_float_run(s->pool, s->dequantize[w->layout], s->matvec_f32[w->layout], s->head_f32, w, x, s->n, s->scratch, s->scratch_bytes, group[i].y);
    }
    if (!s->model->hp.int8_activations) return;
    mark(s, s->rescale);
    tp_linears_run(s->pool, s->rescale, jobs, count, &s->acts, s->n, s->scratch, s->scratch_bytes);
}

/* A step into s->h, then the linears that read it, all at once or each behind a norm of its own. */
static void linears(tp_session *s, step in, point at, const linear *group, int count) {
    const tp_hparams *hp = &s->model->hp;
    int own = 0;
    for (int i = 0; i < count; i++) own |= group[i].own_norm->data != NULL;
    in.s = s;
    in.eps = hp->norm_eps;
    in.quantize = hp->int8_activations && !own;
    in.to = in.quantize && !s->trace ? NULL : s->h;
    take_step(&in);
    if (in.gate) trace_f32(s, "ffn_mul", in.cols, in.gate);
    trace_f32(s, at.floats, in.cols, s->h);
    if (!own) {
        if (in.quantize) trace_codes(s, at, in.cols);
        products(s, group, count, s->h);
        return;
    }
    for (int i = 0; i < count; i++) {
        const step behind = {.s = s, .from = s->h, .norm = group[i].own_norm, .eps = hp->projection_norm_eps, .to = s->own, .cols = in.cols,
                             .quantize = hp->int8_activations};
        take_step(&behind);
        trace_f32(s, group[i].own.floats, in.cols, s->own);
        if (behind.quantize) trace_codes(s, group[i].own, in.cols);
        products(s, &group[i], 1, s->own);
    }
}

/* ---- attention ---- */

/* The block of this layer that holds a position. */
static uint8_t *cache_at(const tp_session *s, uint8_t *cache, int64_t head, int64_t position) {
    return cache + ((s->layer_index * s->model->hp.kv_heads + head) * tp_kv_blocks(s) + position / tp_kv_block(s)) * tp_kv_bytes(s);
}

static void store_cached(const tp_session *s, int64_t head, int64_t position, const float *k, const float *v) {
    uint8_t *const keys = cache_at(s, s->k_cache, head, position), *const values = cache_at(s, s->v_cache, head, position);
    const int64_t dim = s->model->hp.head_dim;
    if (s->kv_type == TP_KV_I16) {
        s->cache16->cache16(k, v, dim, position % tp_kv_block(s), keys, values);
        return;
    }
    memcpy(keys, k, (size_t)dim * sizeof(float));
    memcpy(values, v, (size_t)dim * sizeof(float));
}

static void norm_heads(const tp_session *s, float *x, int64_t heads, const tp_tensor *norm) {
    const int64_t dim = s->model->hp.head_dim;
    for (int64_t h = 0; norm->data && h < heads; h++) s->rmsnorm->rmsnorm(x + h * dim, norm->data, dim, s->model->hp.norm_eps, x + h * dim);
}

static void rope_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const tp_hparams *hp = &s->model->hp;
    const int64_t dim = hp->head_dim;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *q = s->q + t * hp->heads * dim, *k = s->k + t * hp->kv_heads * dim;
        const float *cos_sin = s->cos_sin[s->layer->slides != 0] + t * dim;
        norm_heads(s, q, hp->heads, &s->layer->attn_q_norm);
        norm_heads(s, k, hp->kv_heads, &s->layer->attn_k_norm);
        s->rope->rope(q, hp->heads, dim, cos_sin);
        s->rope->rope(k, hp->kv_heads, dim, cos_sin);
        for (int64_t h = 0; h < hp->kv_heads; h++) store_cached(s, h, s->n_past + t, k + h * dim, s->v + (t * hp->kv_heads + h) * dim);
    }
}

/* What reads a cache together: `tokens` tokens by one of `parts` of the heads that share it. Fewer tokens, then fewer heads if there
 * are threads that would have nothing to do; tokens by themselves once a window slides, since each then begins at another position. */
typedef struct share { int64_t tokens, blocks, parts; } share;

static share attention_share(const tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t group = hp->heads / hp->kv_heads, most = tp_attention_tokens(s);
    share a = {s->layer->slides && s->n_past + s->n > hp->window ? 1 : s->n < most ? s->n : most, 0, 1};
    while (a.tokens > 1 && (s->n + a.tokens - 1) / a.tokens * hp->kv_heads < tp_pool_threads(s->pool)) a.tokens = (a.tokens + 1) / 2;
    a.blocks = (s->n + a.tokens - 1) / a.tokens;
    while (a.parts < group && (group % a.parts || a.blocks * hp->kv_heads * a.parts < tp_pool_threads(s->pool))) a.parts++;
    return a;
}

static void attend(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const tp_hparams *hp = &s->model->hp;
    const share a = attention_share(s);
    const int64_t heads = hp->heads / hp->kv_heads / a.parts;
    for (int64_t i = begin; i < end; i++) {     /* (kv head, part of its heads, block of tokens): neighbours read the same cache */
        const int64_t first_head = i / a.blocks * heads, t = i % a.blocks * a.tokens, kv = i / a.blocks / a.parts;
        const int64_t at = (t * hp->heads + first_head) * hp->head_dim;
        const int64_t seen = s->n_past + t + 1, first = s->layer->slides && seen > hp->window ? seen - hp->window : 0, skip = first % tp_kv_block(s);
        s->attention->attention(&(tp_attention){
            .q = s->q + at, .out = s->mixed + at, .k = cache_at(s, s->k_cache, kv, first), .v = cache_at(s, s->v_cache, kv, first),
            .tokens = t + a.tokens < s->n ? a.tokens : s->n - t, .heads = heads, .head_dim = hp->head_dim,
            .stride = (int64_t)hp->heads * hp->head_dim, .n_pos = seen - first + skip, .skip = skip, .scale = hp->attention_scale, .prefetch = s->n == 1,
            .ld = tp_scores_stride(s), .work = s->work + thread * tp_attention_floats(s)});
    }
}

static void attention(tp_session *s) {
    const share a = attention_share(s);
    tp_pool_run(s->pool, attend, s, a.blocks * s->model->hp.kv_heads * a.parts, 1);
    mark(s, s->attention);
}

/* ---- the whole ---- */

static void add_down(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    (void)thread;
    for (int64_t t = begin; t < end; t++) add_token(s, t, &s->layer->post_ffw_norm);
}

/* Forgets all tokens but the wanted ones, which are the last. */
static void keep_wanted(tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t gone = s->n - s->wanted, q_cols = (int64_t)hp->heads * hp->head_dim;
    if (gone == 0) return;
    memmove(s->x, s->x + gone * hp->hidden, (size_t)(s->wanted * hp->hidden) * sizeof(float));
    memmove(s->q, s->q + gone * q_cols, (size_t)(s->wanted * q_cols) * sizeof(float));
    s->n_past += gone;
    s->n = s->wanted;
}

/* Whether act(gate) * up is made where gate and up are: of many tokens both would be written far away and read again. */
static int multiplies_at_once(const tp_session *s) {
    const tp_layer *l = s->layer;
    const tp_way gate = way_of(s, &l->ffn_gate), up = way_of(s, &l->ffn_up);
    return s->model->hp.int8_activations && s->n > TP_FEW_TOKENS && !s->trace && !l->ffn_gate_norm_in.data && !l->ffn_up_norm_in.data &&
           gate.kernel == up.kernel && gate.unpack == up.unpack;
}

static void run_layer(tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    const tp_layer *l = s->layer;
    const int64_t hidden = hp->hidden, q_cols = (int64_t)hp->heads * hp->head_dim, kv_cols = (int64_t)hp->kv_heads * hp->head_dim;

    const linear qkv[] = {{&l->attn_q, &l->attn_q_norm_in, s->q, POINT("attn_q_in"), 0},
                          {&l->attn_k, &l->attn_k_norm_in, s->k, POINT("attn_k_in"), 0},
                          {&l->attn_v, &l->attn_v_norm_in, s->v, POINT("attn_v_in"), 0}};
    linears(s, (step){.from = s->x, .norm = &l->attn_norm, .cols = hidden}, (point)POINT("attn_in"), qkv, 3);
    trace_f32(s, "attn_q", q_cols, s->q);
    trace_f32(s, "attn_k", kv_cols, s->k);
    trace_f32(s, "attn_v", kv_cols, s->v);
    tp_pool_run(s->pool, rope_tokens, s, s->n, 1);
    mark(s, s->rope);
    if (s->kv_type == TP_KV_I16) mark(s, s->cache16);
    if (s->layer_index == hp->layers - 1) keep_wanted(s);
    if (s->n == 0) return;
    trace_f32(s, "attn_q_rope", q_cols, s->q);
    trace_f32(s, "attn_k_rope", kv_cols, s->k);
    attention(s);
    trace_f32(s, "attn_out", q_cols, s->mixed);
    const linear out = {&l->attn_output, &l->attn_output_norm_in, s->add, POINT("attn_sub_norm"), 0};
    linears(s, (step){.from = s->mixed, .norm = &l->attn_sub_norm, .cols = q_cols}, (point)POINT("attn_sub_norm"), &out, 1);
    trace_f32(s, "attn_output", hidden, s->add);

    const int gated = multiplies_at_once(s);
    const linear up_gate[] = {{&l->ffn_up, &l->ffn_up_norm_in, s->up, POINT("ffn_up_in"), gated},
                              {&l->ffn_gate, &l->ffn_gate_norm_in, s->gate, POINT("ffn_gate_in"), 0}};
    const step into = {.add_behind = &l->post_attention_norm, .from = s->x, .norm = &l->ffn_norm, .cols = hidden};
    linears(s, into, (point)POINT("ffn_in"), up_gate, 2);
    trace_f32(s, "attn_residual", hidden, s->x);
    trace_f32(s, "ffn_gate", hp->ffn, s->gate);
    trace_f32(s, "ffn_up", hp->ffn, s->up);
    const linear down = {&l->ffn_down, &l->ffn_down_norm_in, s->add, POINT("ffn_down_in"), 0};
    linears(s, (step){.from = s->up, .gate = gated ? NULL : s->gate, .norm = &l->ffn_sub_norm, .cols = hp->ffn}, (point)POINT("ffn_down_in"), &down, 1);
    trace_f32(s, "ffn_down", hidden, s->add);
    tp_pool_run(s->pool, add_down, s, s->n, 1);
    trace_f32(s, "layer_out", hidden, s->x);
}

static void run_head(tp_session *s, const float *states, int64_t n, float *logits) {
    const tp_tensor *w = &s->model->output;
    if (!tp_is_ternary(w->layout)) mark(s, s->head);
    if (tp_is_ternary(w->layout)) {
        mark_floats(s, w, n);
        tp_linear_float_run(s->pool, s->dequantize[w->layout], s->matvec_f32[w->layout], s->head, w, states, n, s->scratch, s->scratch_bytes, logits);
        return;
    }
    if (s->acts16) mark(s, s->quantize16);
    tp_head_run(s->pool, s->head, s->quantize16, w, states, n, s->acts16, logits);
}

TP_NOINLINE void tp_run_batch(tp_session *s, const int32_t *tokens, int64_t n, tp_wanted want, float *out) {
    const tp_model *m = s->model;
    const int64_t hidden = m->hp.hidden;
    s->tokens = tokens;
    s->n = n;
    s->wanted = s->trace ? n : want == TP_WANT_NOTHING ? 0 : want == TP_WANT_LAST ? 1 : n;
    s->layer_index = -1;
    tp_pool_run(s->pool, embed_tokens, s, n, 4);
    if (tp_is_ternary(m->token_embd.layout)) mark_way(s, s->dequantize[m->token_embd.layout]);
    trace_f32(s, "embd", hidden, s->x);
    for (s->layer_index = 0; s->layer_index < m->hp.layers; s->layer_index++) {
        s->layer = &m->layers[s->layer_index];
        run_layer(s);
    }
    s->n_past += s->n;
    if (want == TP_WANT_NOTHING) return;
    const int64_t first = want == TP_WANT_LAST ? s->n - 1 : 0, count = s->n - first;
    float *const states = want == TP_WANT_HIDDEN ? out : s->h;
    for (int64_t t = 0; t < count; t++)
        s->rmsnorm->rmsnorm(s->x + (first + t) * hidden, m->output_norm.data, hidden, m->hp.norm_eps, states + t * hidden);
    mark(s, s->rmsnorm);
    trace(s, "final_norm", -1, TP_DTYPE_F32, count, hidden, states);
    if (want == TP_WANT_HIDDEN) return;
    for (int64_t i = 0; i < count * hidden; i++) states[i] *= m->hp.logit_scale;
    run_head(s, states, count, out);
}
