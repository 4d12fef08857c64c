/* A session and the forward pass, one function per stage in the order of the graph:
 *
 *   x = embd[token]
 *   per layer: norm, quantise -> q, k, v -> RoPE, cache -> attention -> (sub norm), quantise -> attn_output -> x +=
 *              norm, quantise -> gate, up -> act(gate) * up -> (sub norm), quantise -> ffn_down -> x +=
 *   final norm -> head
 *
 * Each stage is a loop over tokens, heads or rows given to the pool. Nothing depends on how it is cut. */
#include <string.h>

#include "angles.h"
#include "fpenv.h"
#include "kernels/common.h"
#include "model.h"

struct tp_session {
    const tp_model *model;
    tp_pool *pool;
    int64_t n_ctx, batch, n_past;
    int kv_type;
    tp_trace_fn *trace;
    void *trace_user;

    const tp_kernel *matvec[TP_LAYOUT_COUNT], *matmul[TP_LAYOUT_COUNT], *quantize, *quantize16, *rmsnorm, *glu, *rope, *attention, *head;
    uint8_t *used;              /* (kernels) 1 = ran in this session */

    void *k_cache, *v_cache;    /* (layers, kv_heads, n_ctx, head_dim) f32 or f16 */
    float *x;                   /* (batch, hidden) residual stream */
    float *h;                   /* (batch, widest) input of the next linears */
    float *q;                   /* (batch, heads * head_dim) */
    float *k, *v;               /* (batch, kv_heads * head_dim) */
    float *mixed;               /* (batch, heads * head_dim) attention output */
    float *gate, *up;           /* (batch, ffn) */
    float *add;                 /* (batch, hidden) output of attn_output and ffn_down */
    float *cos_sin;             /* (batch, 2, head_dim / 2) */
    float *scores;              /* (threads, n_ctx rounded up + 16) */
    tp_acts8 acts;              /* (batch, widest) */
    uint8_t *scratch;           /* (threads, scratch_bytes) of the linears */
    size_t scratch_bytes;
    void *acts16;               /* of the head; NULL for float heads */

    /* the batch at work */
    const int32_t *tokens;      /* (n) */
    int64_t n;
    const tp_layer *layer;
    int layer_index;
};

typedef struct norm_step {      /* what enters a linear group */
    tp_session *s;
    const float *from;          /* (n, cols) */
    const tp_tensor *weight;    /* (1, cols) or absent */
    const float *add;           /* (n, cols) added to s->x first, or NULL */
    int64_t cols;
} norm_step;

static size_t kv_size(const tp_session *s) { return s->kv_type == TP_KV_F16 ? 2 : 4; }
static int64_t scores_stride(const tp_session *s) { return (s->n_ctx + 15) / 16 * 16 + 16; }
static void mark(tp_session *s, const tp_kernel *k) { s->used[tp_kernel_index(k)] = 1; }

static void trace(tp_session *s, const char *point, int layer, int dtype, int64_t rows, int64_t cols, const void *data) {
    if (s->trace) s->trace(s->trace_user, point, layer, dtype, rows, cols, data);
}
static void trace_f32(tp_session *s, const char *point, int64_t cols, const float *data) {
    trace(s, point, s->layer_index, TP_DTYPE_F32, s->n, cols, data);
}

/* ---- stages over tokens ---- */

static void embed_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const tp_model *m = s->model;
    const int64_t half = m->hp.head_dim / 2;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        tp_tensor_row(&m->token_embd, s->tokens[t], s->x + t * m->hp.hidden);
        float *c = s->cos_sin + t * 2 * half;
        for (int64_t i = 0; i < half; i++) tp_cos_sin((float)(s->n_past + t) * m->inv_freq[i], &c[i], &c[half + i]);
    }
}

static void add_tokens(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

static void norm_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    const norm_step *step = ctx;
    tp_session *s = step->s;
    const int64_t cols = step->cols;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        if (step->add) add_tokens(s->x + t * cols, step->add + t * cols, cols);
        if (step->weight->data) s->rmsnorm->rmsnorm(step->from + t * cols, step->weight->data, cols, s->model->hp.norm_eps, s->h + t * cols);
        else memcpy(s->h + t * cols, step->from + t * cols, (size_t)cols * sizeof(float));
        s->quantize->quantize(s->h + t * cols, cols, s->acts.q + t * cols, &s->acts.s[t], &s->acts.sum[t]);
    }
}

/* Norm (if any) and quantisation into s->h and s->acts; the trace points `point`, .q8 and .scale. */
static void enter_linears(tp_session *s, norm_step step, const char *point, const char *q8, const char *scale) {
    tp_pool_run(s->pool, norm_tokens, &step, s->n, 1);
    if (step.weight->data) mark(s, s->rmsnorm);
    mark(s, s->quantize);
    trace_f32(s, point, step.cols, s->h);
    trace(s, q8, s->layer_index, TP_DTYPE_INT8, s->n, step.cols, s->acts.q);
    trace(s, scale, s->layer_index, TP_DTYPE_F32, s->n, 1, s->acts.s);
}

static void linears(tp_session *s, int count, const tp_tensor *const *w /* (count) */, float *const *y /* (count) */) {
    tp_linear_job jobs[3];
    for (int i = 0; i < count; i++) {
        jobs[i] = (tp_linear_job){.w = w[i], .kernel = (s->n <= TP_FEW_TOKENS ? s->matvec : s->matmul)[w[i]->layout], .y = y[i]};
        mark(s, jobs[i].kernel);
    }
    tp_linears_run(s->pool, jobs, count, &s->acts, s->n, s->scratch, s->scratch_bytes);
}

/* ---- attention ---- */

static void *cache_at(const tp_session *s, void *cache, int64_t head, int64_t pos) {
    const tp_hparams *hp = &s->model->hp;
    return (uint8_t *)cache + (((s->layer_index * hp->kv_heads + head) * s->n_ctx + pos) * hp->head_dim) * (int64_t)kv_size(s);
}

static void store_cached(const tp_session *s, void *to, const float *from, int64_t n) {
    if (s->kv_type == TP_KV_F32) {
        memcpy(to, from, (size_t)n * sizeof(float));
        return;
    }
    uint16_t *half = to;
    for (int64_t i = 0; i < n; i++) half[i] = tp_float_f16(from[i]);
}

static void rope_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const tp_hparams *hp = &s->model->hp;
    const int64_t dim = hp->head_dim;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        s->rope->rope(s->q + t * hp->heads * dim, hp->heads, dim, s->cos_sin + t * dim);
        s->rope->rope(s->k + t * hp->kv_heads * dim, hp->kv_heads, dim, s->cos_sin + t * dim);
        for (int64_t h = 0; h < hp->kv_heads; h++) {
            store_cached(s, cache_at(s, s->k_cache, h, s->n_past + t), s->k + (t * hp->kv_heads + h) * dim, dim);
            store_cached(s, cache_at(s, s->v_cache, h, s->n_past + t), s->v + (t * hp->kv_heads + h) * dim, dim);
        }
    }
}

static void attend(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const tp_hparams *hp = &s->model->hp;
    const float scale = 1.0f / __builtin_sqrtf((float)hp->head_dim);
    for (int64_t i = begin; i < end; i++) {     /* (head, token): neighbours share the cache of a kv head */
        const int64_t head = i / s->n, t = i % s->n, kv = head / (hp->heads / hp->kv_heads), at = (t * hp->heads + head) * hp->head_dim;
        s->attention->attention(s->q + at, cache_at(s, s->k_cache, kv, 0), cache_at(s, s->v_cache, kv, 0), s->n_past + t + 1, hp->head_dim, scale,
                                s->scores + thread * scores_stride(s), s->mixed + at);
    }
}

/* ---- feed forward ---- */

static void glu_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const int64_t f = s->model->hp.ffn;
    (void)thread;
    s->glu->glu(s->gate + begin * f, s->up + begin * f, (end - begin) * f, s->model->hp.activation, s->gate + begin * f);
}

static void add_down(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const int64_t hidden = s->model->hp.hidden;
    (void)thread;
    add_tokens(s->x + begin * hidden, s->add + begin * hidden, (end - begin) * hidden);
}

/* ---- the whole ---- */

static void run_layer(tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    const tp_layer *l = s->layer;
    const int64_t hidden = hp->hidden, q_cols = (int64_t)hp->heads * hp->head_dim, kv_cols = (int64_t)hp->kv_heads * hp->head_dim;

    enter_linears(s, (norm_step){s, s->x, &l->attn_norm, NULL, hidden}, "attn_in", "attn_in.q8", "attn_in.scale");
    linears(s, 3, (const tp_tensor *const[]){&l->attn_q, &l->attn_k, &l->attn_v}, (float *const[]){s->q, s->k, s->v});
    trace_f32(s, "attn_q", q_cols, s->q);
    trace_f32(s, "attn_k", kv_cols, s->k);
    trace_f32(s, "attn_v", kv_cols, s->v);
    tp_pool_run(s->pool, rope_tokens, s, s->n, 1);
    mark(s, s->rope);
    trace_f32(s, "attn_q_rope", q_cols, s->q);
    trace_f32(s, "attn_k_rope", kv_cols, s->k);
    tp_pool_run(s->pool, attend, s, s->n * hp->heads, s->n == 1 ? 1 : 8);
    mark(s, s->attention);
    trace_f32(s, "attn_out", q_cols, s->mixed);
    enter_linears(s, (norm_step){s, s->mixed, &l->attn_sub_norm, NULL, q_cols}, "attn_sub_norm", "attn_sub_norm.q8", "attn_sub_norm.scale");
    linears(s, 1, (const tp_tensor *const[]){&l->attn_output}, (float *const[]){s->add});
    trace_f32(s, "attn_output", hidden, s->add);

    enter_linears(s, (norm_step){s, s->x, &l->ffn_norm, s->add, hidden}, "ffn_in", "ffn_in.q8", "ffn_in.scale");
    trace_f32(s, "attn_residual", hidden, s->x);
    linears(s, 2, (const tp_tensor *const[]){&l->ffn_gate, &l->ffn_up}, (float *const[]){s->gate, s->up});
    trace_f32(s, "ffn_gate", hp->ffn, s->gate);
    trace_f32(s, "ffn_up", hp->ffn, s->up);
    tp_pool_run(s->pool, glu_tokens, s, s->n, 1);
    mark(s, s->glu);
    trace_f32(s, "ffn_mul", hp->ffn, s->gate);
    enter_linears(s, (norm_step){s, s->gate, &l->ffn_sub_norm, NULL, hp->ffn}, "ffn_down_in", "ffn_down_in.q8", "ffn_down_in.scale");
    linears(s, 1, (const tp_tensor *const[]){&l->ffn_down}, (float *const[]){s->add});
    trace_f32(s, "ffn_down", hidden, s->add);
    tp_pool_run(s->pool, add_down, s, s->n, 1);
    trace_f32(s, "layer_out", hidden, s->x);
}

typedef enum wanted { NOTHING, LAST_LOGITS, ALL_LOGITS, HIDDEN } wanted;

static TP_NOINLINE void run_batch(tp_session *s, const int32_t *tokens, int64_t n, wanted want, float *out) {
    const tp_model *m = s->model;
    const int64_t hidden = m->hp.hidden;
    s->tokens = tokens;
    s->n = n;
    s->layer_index = -1;
    tp_pool_run(s->pool, embed_tokens, s, n, 4);
    trace_f32(s, "embd", hidden, s->x);
    for (s->layer_index = 0; s->layer_index < m->hp.layers; s->layer_index++) {
        s->layer = &m->layers[s->layer_index];
        run_layer(s);
    }
    s->n_past += n;
    if (want == NOTHING) return;
    const int64_t first = want == LAST_LOGITS ? n - 1 : 0;
    float *const normed = want == HIDDEN ? out : s->h;
    for (int64_t t = first; t < n; t++)
        s->rmsnorm->rmsnorm(s->x + t * hidden, m->output_norm.data, hidden, m->hp.norm_eps, normed + (t - first) * hidden);
    mark(s, s->rmsnorm);
    trace(s, "final_norm", -1, TP_DTYPE_F32, n - first, hidden, normed);
    if (want == HIDDEN) return;
    if (s->acts16) mark(s, s->quantize16);
    mark(s, s->head);
    tp_head_run(s->pool, s->head, s->quantize16, &m->output, normed, n - first, s->acts16, out);
}

static int eval(tp_session *s, const int32_t *tokens, int64_t n, wanted want, float *out) {
    if (!s || !tokens || n < 1 || (want != NOTHING && !out)) return TP_ERR_ARGUMENT;
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->model->hp.vocab_size) return TP_ERR_TOKEN;
    if (n > s->n_ctx - s->n_past) return TP_ERR_CONTEXT;
    const int64_t width = want == HIDDEN ? s->model->hp.hidden : s->model->hp.vocab_size;
    const tp_fpenv before = tp_fpenv_enter();
    for (int64_t i = 0; i < n; i += s->batch) {
        const int64_t here = n - i < s->batch ? n - i : s->batch;
        const int ends = i + here == n;
        run_batch(s, tokens + i, here, want == LAST_LOGITS && !ends ? NOTHING : want, want == ALL_LOGITS || want == HIDDEN ? out + i * width : out);
    }
    tp_fpenv_leave(before);
    return TP_OK;
}

int tp_eval(tp_session *s, const int32_t *tokens, int64_t n, int logits_mode, float *logits) {
    switch (logits_mode) {
        case TP_LOGITS_NONE: return eval(s, tokens, n, NOTHING, NULL);
        case TP_LOGITS_LAST: return eval(s, tokens, n, LAST_LOGITS, logits);
        case TP_LOGITS_ALL: return eval(s, tokens, n, ALL_LOGITS, logits);
        default: return TP_ERR_ARGUMENT;
    }
}

int tp_eval_hidden(tp_session *s, const int32_t *tokens, int64_t n, float *hidden) { return eval(s, tokens, n, HIDDEN, hidden); }

int64_t tp_n_past(const tp_session *s) { return s ? s->n_past : 0; }

int tp_rewind(tp_session *s, int64_t n_past) {
    if (!s || n_past < 0 || n_past > s->n_past) return TP_ERR_ARGUMENT;
    s->n_past = n_past;
    return TP_OK;
}

void tp_set_trace(tp_session *s, tp_trace_fn *callback, void *user) {
    if (!s) return;
    s->trace = callback;
    s->trace_user = user;
}

int tp_session_kernels(const tp_session *s, const char **symbols, int max) {
    int count = 0;
    for (int i = 0; s && i < tp_kernel_count(); i++) {
        if (!s->used[i]) continue;
        if (symbols && count < max) symbols[count] = tp_kernel_at(i)->symbol;
        count++;
    }
    return count;
}

/* ---- making one ---- */

static void choose_kernels(tp_session *s, int isa) {
    for (int layout = 0; layout < TP_LAYOUT_COUNT; layout++) {
        s->matvec[layout] = tp_kernel_best(TP_OP_MATVEC, layout, isa);
        s->matmul[layout] = tp_kernel_best(TP_OP_MATMUL, layout, isa);
    }
    s->quantize = tp_kernel_best(TP_OP_QUANTIZE, TP_LAYOUT_F32, isa);
    s->quantize16 = tp_kernel_best(TP_OP_QUANTIZE16, TP_LAYOUT_F32, isa);
    s->rmsnorm = tp_kernel_best(TP_OP_RMSNORM, TP_LAYOUT_F32, isa);
    s->glu = tp_kernel_best(TP_OP_GLU, TP_LAYOUT_F32, isa);
    s->rope = tp_kernel_best(TP_OP_ROPE, TP_LAYOUT_F32, isa);
    s->attention = tp_kernel_best(TP_OP_ATTENTION, s->kv_type == TP_KV_F16 ? TP_LAYOUT_F16 : TP_LAYOUT_F32, isa);
    s->head = tp_kernel_best(TP_OP_HEAD, s->model->output.layout, isa);
}

static size_t linears_scratch(const tp_session *s) {
    size_t most = 0;
    for (int i = 0; i < s->model->hp.layers; i++) {
        const tp_layer *l = &s->model->layers[i];
        const tp_tensor *const w[] = {&l->attn_q, &l->attn_k, &l->attn_v, &l->attn_output, &l->ffn_gate, &l->ffn_up, &l->ffn_down};
        for (size_t j = 0; j < sizeof w / sizeof *w; j++) {
            const size_t few = tp_linear_scratch(s->matvec[w[j]->layout], w[j]->rows, w[j]->cols, TP_FEW_TOKENS);
            const size_t many = tp_linear_scratch(s->matmul[w[j]->layout], w[j]->rows, w[j]->cols, s->batch);
            most = few > most ? few : most;
            most = many > most ? many : most;
        }
    }
    return most;
}

static int allocate(tp_session *s, int threads) {
    const tp_hparams *hp = &s->model->hp;
    const size_t batch = (size_t)s->batch, hidden = (size_t)hp->hidden, ffn = (size_t)hp->ffn;
    const size_t q_cols = (size_t)hp->heads * (size_t)hp->head_dim, kv_cols = (size_t)hp->kv_heads * (size_t)hp->head_dim;
    size_t widest = hidden > ffn ? hidden : ffn;
    widest = q_cols > widest ? q_cols : widest;
    const size_t cached = (size_t)hp->layers * kv_cols;
    int fine = 1;
#define TAKE(pointer, count, size) fine = fine && ((pointer) = tp_alloc(count, size)) != NULL
    TAKE(s->used, (size_t)tp_kernel_count(), 1);
    TAKE(s->k_cache, cached, (size_t)s->n_ctx * kv_size(s));
    TAKE(s->v_cache, cached, (size_t)s->n_ctx * kv_size(s));
    TAKE(s->x, batch, hidden * sizeof(float));
    TAKE(s->h, batch, widest * sizeof(float));
    TAKE(s->q, batch, q_cols * sizeof(float));
    TAKE(s->k, batch, kv_cols * sizeof(float));
    TAKE(s->v, batch, kv_cols * sizeof(float));
    TAKE(s->mixed, batch, q_cols * sizeof(float));
    TAKE(s->gate, batch, ffn * sizeof(float));
    TAKE(s->up, batch, ffn * sizeof(float));
    TAKE(s->add, batch, hidden * sizeof(float));
    TAKE(s->cos_sin, batch, (size_t)hp->head_dim * sizeof(float));
    TAKE(s->scores, (size_t)threads, (size_t)scores_stride(s) * sizeof(float));
    TAKE(s->acts.q, batch, widest);
    TAKE(s->acts.s, batch, sizeof(float));
    TAKE(s->acts.sum, batch, sizeof(int32_t));
    TAKE(s->acts.arranged, batch + 12, (widest + 255) / 256 * 256);     /* every arrangement of dispatch.c fits */
    s->scratch_bytes = linears_scratch(s);
    TAKE(s->scratch, (size_t)threads, s->scratch_bytes);
    if (s->model->output.layout == TP_LAYOUT_Q8_0 || s->model->output.layout == TP_LAYOUT_Q6_K)
        TAKE(s->acts16, 1, tp_acts16_bytes(s->batch, hp->hidden));
#undef TAKE
    return fine ? TP_OK : TP_ERR_MEMORY;
}

int tp_session_new(const tp_model *model, const tp_session_params *p, tp_session **out) {
    if (!out) return TP_ERR_ARGUMENT;
    *out = NULL;
    if (!model || !p || p->threads < 0 || p->threads > TP_MAX_THREADS || p->n_ctx < 0 || p->n_ctx > 1 << 24 || p->batch < 0 || p->batch > 1 << 16 ||
        (p->kv_type != TP_KV_F32 && p->kv_type != TP_KV_F16))
        return TP_ERR_ARGUMENT;
    const int isa = p->isa == TP_ISA_BEST ? tp_best_isa() : p->isa, threads = p->threads ? p->threads : 1;
    if (!tp_isa_available(isa)) return TP_ERR_ISA;
    tp_session *s = tp_alloc(1, sizeof *s);
    if (!s) return TP_ERR_MEMORY;
    s->model = model;
    s->n_ctx = p->n_ctx ? p->n_ctx : model->hp.context_length;
    s->batch = p->batch ? p->batch : 256;
    if (s->batch > s->n_ctx) s->batch = s->n_ctx;
    s->kv_type = p->kv_type;
    choose_kernels(s, isa);
    int status = allocate(s, threads);
    if (!status) s->pool = tp_pool_new(threads, &status);
    if (status) {
        tp_session_free(s);
        return status;
    }
    *out = s;
    return TP_OK;
}

void tp_session_free(tp_session *s) {
    if (!s) return;
    tp_pool_free(s->pool);
    void *const parts[] = {s->used, s->k_cache, s->v_cache, s->x, s->h, s->q, s->k, s->v, s->mixed, s->gate, s->up, s->add, s->cos_sin,
                           s->scores, s->acts.q, s->acts.s, s->acts.sum, s->acts.arranged, s->scratch, s->acts16};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) tp_free(parts[i]);
    tp_free(s);
}
