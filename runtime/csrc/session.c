/* The life of a session: it is made, evaluates tokens, goes back and is freed. graph.c computes. */
#include "fpenv.h"
#include "kv_cache.h"

static int eval(tp_session *s, const int32_t *tokens, int64_t n, tp_wanted want, float *out) {
    if (!s || !tokens || n < 1 || (want != TP_WANT_NOTHING && !out)) return TP_ERR_ARGUMENT;
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->model->hp.vocab_size) return TP_ERR_TOKEN;
    if (n > s->n_ctx - s->n_past) return TP_ERR_CONTEXT;
    const int64_t width = want == TP_WANT_HIDDEN ? s->model->hp.hidden : s->model->hp.vocab_size;
    const tp_fpenv before = tp_fpenv_enter();
    for (int64_t i = 0; i < n; i += s->batch) {
        const int64_t count = n - i < s->batch ? n - i : s->batch;
        const int ends = i + count == n, all = want == TP_WANT_ALL || want == TP_WANT_HIDDEN;
        tp_run_batch(s, tokens + i, count, want == TP_WANT_LAST && !ends ? TP_WANT_NOTHING : want,
                     all ? out + i * width : out);
    }
    tp_fpenv_leave(before);
    return TP_OK;
}

int tp_eval(tp_session *s, const int32_t *tokens, int64_t n, int logits_mode, float *logits) {
    switch (logits_mode) {
        case TP_LOGITS_NONE: return eval(s, tokens, n, TP_WANT_NOTHING, NULL);
        case TP_LOGITS_LAST: return eval(s, tokens, n, TP_WANT_LAST, logits);
        case TP_LOGITS_ALL: return eval(s, tokens, n, TP_WANT_ALL, logits);
        default: return TP_ERR_ARGUMENT;
    }
}

int tp_eval_hidden(tp_session *s, const int32_t *tokens, int64_t n, float *hidden) {
    return eval(s, tokens, n, TP_WANT_HIDDEN, hidden);
}

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

/* ---- making a session ---- */

static void choose_kernels(tp_session *s, int isa) {
    for (int layout = 0; layout < TP_LAYOUT_COUNT; layout++) {
        s->matvec[layout] = tp_kernel_plan_for(TP_OP_MATVEC, layout, isa);
        s->unpacking_matvec[layout] = tp_unpacking_plan_for(TP_OP_MATVEC, layout, isa);
        s->matmul[layout] = tp_kernel_plan_for(TP_OP_MATMUL, layout, isa);
        s->matvec_f32[layout] = tp_kernel_plan_for(TP_OP_MATVEC_F32, layout, isa);
        s->dequantize[layout] = tp_kernel_plan_for(TP_OP_DEQUANTIZE, layout, isa);
    }
    s->quantize = tp_kernel_best(TP_OP_QUANTIZE, TP_LAYOUT_F32, isa);
    s->quantize16 = tp_kernel_best(TP_OP_QUANTIZE16, TP_LAYOUT_F32, isa);
    s->rescale = tp_kernel_best(TP_OP_RESCALE, TP_LAYOUT_F32, isa);
    s->rmsnorm = tp_kernel_best(TP_OP_RMSNORM, TP_LAYOUT_F32, isa);
    s->glu = tp_kernel_best(TP_OP_GLU, TP_LAYOUT_F32, isa);
    s->rope = tp_kernel_best(s->model->hp.rope_interleaved ? TP_OP_ROPEPAIRS : TP_OP_ROPE,
                             TP_LAYOUT_F32, isa);
    s->attention = tp_kernel_best(s->kv_type == TP_KV_I16 ? TP_OP_ATTENTION16 : TP_OP_ATTENTION,
                                  TP_LAYOUT_F32, isa);
    s->cache16 = tp_kernel_best(TP_OP_CACHE16, TP_LAYOUT_F32, isa);
    s->head_f32 = tp_kernel_best(TP_OP_LM_HEAD, TP_LAYOUT_F32, isa);
    s->head = tp_is_ternary(s->model->output.layout)
                  ? s->head_f32
                  : tp_kernel_best(TP_OP_LM_HEAD, s->model->output.layout, isa);
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static int64_t few_tokens(const tp_session *s, const tp_linear *l) {
    const int64_t few = tp_matvec_for(s, l).kernel->few_tokens;
    return s->batch < few ? s->batch : few;
}

static size_t linear_scratch(const tp_session *s, const tp_linear *l) {
    const tp_tensor *w = l->w;
    if (!s->model->hp.int8_activations) return tp_float_scratch(w->rows, w->cols);
    return larger(tp_linear_scratch(tp_matvec_for(s, l), w->rows, w->cols, few_tokens(s, l)),
                  tp_linear_scratch(s->matmul[w->layout], w->rows, w->cols, s->batch));
}

/* Bytes per thread that any product of the model needs. */
static size_t products_scratch(const tp_session *s) {
    const tp_model *m = s->model;
    size_t most =
        tp_is_ternary(m->output.layout) ? tp_float_scratch(m->output.rows, m->output.cols) : 0;
    if (tp_is_ternary(m->token_embd.layout))
        most = larger(most, tp_dequantize_scratch(m->token_embd.cols));
    for (int i = 0; i < m->hp.layers; i++)
        for (int j = 0; j < TP_LINEAR_COUNT; j++)
            most = larger(most, linear_scratch(s, &m->linears[i][j]));
    return most;
}

/* Bytes of the longest activations in the order of a kernel. */
static size_t ordered_bytes(const tp_session *s) {
    const tp_model *m = s->model;
    size_t most = 1;
    for (int i = 0; i < m->hp.layers; i++)
        for (int j = 0; j < TP_LINEAR_COUNT; j++) {
            const tp_linear *l = &m->linears[i][j];
            const tp_activation_order *one = tp_matvec_for(s, l).kernel->activation_order;
            const tp_activation_order *many = s->matmul[l->w->layout].kernel->activation_order;
            most = larger(most, one->bytes(one, few_tokens(s, l), l->w->cols));
            if (many) most = larger(most, many->bytes(many, s->batch, l->w->cols));
        }
    return most;
}

static int has_own_norms(const tp_model *m) {
    for (int i = 0; i < m->hp.layers; i++)
        for (int j = 0; j < TP_LINEAR_COUNT; j++)
            if (m->linears[i][j].norm_in->data) return 1;
    return 0;
}

static int allocate(tp_session *s, int threads) {
    const tp_hparams *hp = &s->model->hp;
    const size_t batch = (size_t)s->batch, hidden = (size_t)hp->hidden, ffn = (size_t)hp->ffn;
    const size_t q_cols = (size_t)hp->heads * (size_t)hp->head_dim,
                 kv_cols = (size_t)hp->kv_heads * (size_t)hp->head_dim;
    const size_t widest = larger(larger(hidden, ffn), q_cols), padded = (widest + 255) / 256 * 256;
    const size_t cached = (size_t)hp->layers * (size_t)hp->kv_heads * (size_t)tp_kv_blocks(s);
    int fine = 1;
#define TAKE(pointer, count, size) fine = fine && ((pointer) = tp_alloc(count, size)) != NULL
    TAKE(s->used, (size_t)tp_kernel_count(), 1);
    TAKE(s->k_cache, cached, (size_t)tp_kv_bytes(s));
    TAKE(s->v_cache, cached, (size_t)tp_kv_bytes(s));
    TAKE(s->x, batch, hidden * sizeof(float));
    TAKE(s->h, batch, widest * sizeof(float));
    if (has_own_norms(s->model)) TAKE(s->own, batch, widest * sizeof(float));
    TAKE(s->q, batch, q_cols * sizeof(float));
    TAKE(s->k, batch, kv_cols * sizeof(float));
    TAKE(s->v, batch, kv_cols * sizeof(float));
    TAKE(s->mixed, batch, q_cols * sizeof(float));
    TAKE(s->gate, batch, ffn * sizeof(float));
    TAKE(s->up, batch, ffn * sizeof(float));
    TAKE(s->add, batch, hidden * sizeof(float));
    TAKE(s->cos_sin[0], batch, (size_t)hp->head_dim * sizeof(float));
    if (hp->inv_freq_sliding) TAKE(s->cos_sin[1], batch, (size_t)hp->head_dim * sizeof(float));
    TAKE(s->work, (size_t)threads, (size_t)tp_attention_floats(s) * sizeof(float));
    TAKE(s->acts.q, batch, padded);
    TAKE(s->acts.s, batch, sizeof(float));
    TAKE(s->acts.sum, batch, sizeof(int32_t));
    TAKE(s->acts.ordered, 1,
         larger(ordered_bytes(s), batch * padded)); /* and a batch for trace_codes */
    s->scratch_bytes = larger(products_scratch(s), (widest * sizeof(float) + 63) / 64 * 64);
    TAKE(s->scratch, (size_t)threads, s->scratch_bytes);
    if (tp_takes_acts16(s->model->output.layout))
        TAKE(s->acts16, 1, tp_acts16_bytes(s->batch, hp->hidden));
#undef TAKE
    return fine ? TP_OK : TP_ERR_MEMORY;
}

int tp_session_new(const tp_model *model, const tp_session_params *p, tp_session **out) {
    if (!out) return TP_ERR_ARGUMENT;
    *out = NULL;
    if (!model || !p || p->threads < 0 || p->threads > TP_MAX_THREADS || p->n_ctx < 0 ||
        p->n_ctx > 1 << 24 || p->batch < 0 || p->batch > 1 << 16 ||
        (p->kv_type != TP_KV_F32 && p->kv_type != TP_KV_I16))
        return TP_ERR_ARGUMENT;
    const int isa = p->isa == TP_ISA_BEST ? tp_best_isa() : p->isa,
              threads = p->threads ? p->threads : 1;
    if (!tp_isa_available(isa)) return TP_ERR_ISA;
    tp_session *s = tp_alloc(1, sizeof *s);
    if (!s) return TP_ERR_MEMORY;
    s->model = model;
    s->n_ctx = p->n_ctx ? p->n_ctx : model->hp.context_length;
    s->batch = p->batch ? p->batch : 264; /* 22 tiles of 12 tokens */
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
    void *const parts[] = {s->used,    s->k_cache, s->v_cache, s->x,          s->h,
                           s->own,     s->q,       s->k,       s->v,          s->mixed,
                           s->gate,    s->up,      s->add,     s->cos_sin[0], s->cos_sin[1],
                           s->work,    s->acts.q,  s->acts.s,  s->acts.sum,   s->acts.ordered,
                           s->scratch, s->acts16};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) tp_free(parts[i]);
    tp_free(s);
}
