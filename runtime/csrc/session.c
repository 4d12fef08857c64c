/* The life of a session: it is made, evaluates tokens and is freed. graph.c computes. */
#include "fpenv.h"
#include "session.h"

/* ---- evaluating ---- */

/* Whether a span can be evaluated. */
static int check_span(const tp_session *s, const tp_span *a) {
    if (!a->sequence || a->sequence->session != s || !a->tokens || a->n < 1 || a->wanted < 0 ||
        a->wanted > a->n)
        return TP_ERR_ARGUMENT;
    for (int64_t i = 0; i < a->n; i++)
        if (a->tokens[i] < 0 || a->tokens[i] >= s->model->hp.vocab_size) return TP_ERR_TOKEN;
    return a->n > a->sequence->n_ctx - a->sequence->n_past ? TP_ERR_CONTEXT : TP_OK;
}

/* Puts n tokens of a span, from `begin` on, into the batch. */
static void add_run(tp_session *s, const tp_span *a, int64_t begin, int64_t n) {
    const int64_t unwanted = a->n - a->wanted, end = begin + n,
                  wanted = end - (begin > unwanted ? begin : unwanted);
    tp_run *r = &s->runs[s->run_count++];
    *r = (tp_run){.sequence = a->sequence,
                  .row = s->n,
                  .n = n,
                  .position = a->sequence->n_past,
                  .wanted = wanted > 0 ? wanted : 0,
                  .span = a,
                  .begin = begin};
    for (int64_t i = 0; i < n; i++)
        s->rows[s->n++] = (tp_row){
            .token = a->tokens[begin + i], .sequence = a->sequence, .position = r->position + i};
    a->sequence->n_past += n;
}

/* Evaluates the batch. Returns where the output of the next one begins. */
static float *run_batch(tp_session *s, tp_output kind, float *out) {
    const int64_t width = kind == TP_OUTPUT_HIDDEN ? s->model->hp.hidden : s->model->hp.vocab_size;
    int64_t wanted = 0;
    for (int64_t i = 0; i < s->run_count; i++) wanted += s->runs[i].wanted;
    tp_begin_batch(s);
    tp_run_layers(s, s->model->hp.layers);
    tp_end_batch(s, kind, out);
    s->n = s->run_count = 0;
    return wanted ? out + wanted * width : out;
}

static int eval(tp_session *s, const tp_span *spans, int64_t count, tp_output kind, float *out) {
    if (!s || !spans || count < 1) return TP_ERR_ARGUMENT;
    int64_t wanted = 0;
    for (int64_t i = 0; i < count; i++) {
        const int status = check_span(s, &spans[i]);
        if (status) return status;
        for (int64_t j = 0; j < i; j++)
            if (spans[j].sequence == spans[i].sequence) return TP_ERR_ARGUMENT;
        wanted += spans[i].wanted;
    }
    if (wanted && !out) return TP_ERR_ARGUMENT;
    s->n = s->run_count = s->begun = 0;
    const tp_fpenv before = tp_fpenv_enter();
    for (int64_t i = 0; i < count; i++)
        for (int64_t begin = 0; begin < spans[i].n;) {
            const int64_t room = s->batch - s->n, rest = spans[i].n - begin,
                          n = rest < room ? rest : room;
            add_run(s, &spans[i], begin, n);
            begin += n;
            if (s->n == s->batch) out = run_batch(s, kind, out);
        }
    if (s->n) run_batch(s, kind, out);
    tp_fpenv_leave(before);
    return TP_OK;
}

int tp_eval_spans(tp_session *s, const tp_span *spans, int64_t count, float *logits) {
    return eval(s, spans, count, TP_OUTPUT_LOGITS, logits);
}

/* The span that the arguments of tp_eval ask for. Without a sequence, which no session takes, if
 * they are wrong. */
static tp_span own_span(tp_session *s, const int32_t *tokens, int64_t n, int logits_mode) {
    const int known = s && logits_mode >= TP_LOGITS_NONE && logits_mode <= TP_LOGITS_ALL;
    return (tp_span){.sequence = known ? &s->own : NULL,
                     .tokens = tokens,
                     .n = n,
                     .wanted = logits_mode == TP_LOGITS_ALL ? n : logits_mode == TP_LOGITS_LAST};
}

int tp_eval(tp_session *s, const int32_t *tokens, int64_t n, int logits_mode, float *logits) {
    const tp_span span = own_span(s, tokens, n, logits_mode);
    return tp_eval_spans(s, &span, 1, logits);
}

int tp_eval_begin(tp_session *s, const int32_t *tokens, int64_t n, int logits_mode) {
    const tp_span span = own_span(s, tokens, n, logits_mode);
    if (!s || n > s->batch || s->model->recurrent_layers) return TP_ERR_ARGUMENT;
    const int status = check_span(s, &span);
    if (status) return status;
    const tp_fpenv before = tp_fpenv_enter();
    s->n = s->run_count = 0;
    s->begun = n;
    s->begun_at = s->own.n_past;
    s->begun_wanted = (int)span.wanted;
    add_run(s, &span, 0, n);
    s->own.n_past = s->begun_at;
    tp_begin_batch(s);
    tp_fpenv_leave(before);
    return TP_OK;
}

int tp_eval_layers(tp_session *s, int32_t layers, float *logits, int32_t *left) {
    if (!s || !s->begun || s->begun_at != s->own.n_past || layers < 1 || !left ||
        (s->begun_wanted && !logits))
        return TP_ERR_ARGUMENT;
    const tp_fpenv before = tp_fpenv_enter();
    tp_run_layers(s, layers);
    *left = s->model->hp.layers - s->layer_index;
    if (*left == 0) {
        tp_end_batch(s, TP_OUTPUT_LOGITS, logits);
        s->own.n_past += s->begun;
        s->n = s->run_count = s->begun = 0;
    }
    tp_fpenv_leave(before);
    return TP_OK;
}

int tp_eval_hidden(tp_session *s, const int32_t *tokens, int64_t n, float *hidden) {
    if (!s) return TP_ERR_ARGUMENT;
    return eval(s, &(tp_span){&s->own, tokens, n, n}, 1, TP_OUTPUT_HIDDEN, hidden);
}

tp_sequence *tp_session_sequence(tp_session *s) { return s ? &s->own : NULL; }

int64_t tp_n_past(const tp_session *s) { return s ? s->own.n_past : 0; }

int tp_rewind(tp_session *s, int64_t n_past) {
    return tp_sequence_rewind(s ? &s->own : NULL, n_past);
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
    s->hadamard = tp_kernel_best(TP_OP_HADAMARD, TP_LAYOUT_F32, isa);
    s->conv = tp_kernel_best(TP_OP_CONV, TP_LAYOUT_F32, isa);
    s->delta_rule = tp_kernel_best(TP_OP_DELTA_RULE, TP_LAYOUT_F32, isa);
    static const int floats[] = {TP_LAYOUT_F32, TP_LAYOUT_F16, TP_LAYOUT_BF16};
    for (int i = 0; i < 3; i++) s->gates[floats[i]] = tp_kernel_best(TP_OP_LM_HEAD, floats[i], isa);
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
            if (tp_is_product(&m->linears[i][j]))
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
            if (!tp_is_product(l)) continue;
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

static int has_rotated(const tp_model *m) {
    int any = 0;
    for (int i = 0; i < m->hp.layers; i++)
        for (int j = 0; j < TP_LINEAR_COUNT; j++) any |= m->linears[i][j].w->rotated;
    return any;
}

/* Buffers that only recurrent layers have. */
static int allocate_recurrence(tp_session *s, size_t rows) {
    const tp_hparams *hp = &s->model->hp;
    if (!s->model->recurrent_layers) return TP_OK;
    const size_t size = (size_t)hp->state_size, heads = (size_t)hp->value_heads;
    s->alpha = tp_alloc(rows, heads * sizeof(float));
    s->beta = tp_alloc(rows, heads * sizeof(float));
    s->unit = tp_alloc(2, size * sizeof(float));
    if (!s->alpha || !s->beta || !s->unit) return TP_ERR_MEMORY;
    for (size_t i = 0; i < size; i++) {
        s->unit[i] = 1.0f / (float)size; /* that of the norm, and 1 / sqrt(size) of q.k */
        s->unit[size + i] = (float)(1.0 / __builtin_sqrt((double)size));
    }
    return TP_OK;
}

static int allocate(tp_session *s, int threads) {
    const tp_hparams *hp = &s->model->hp;
    const size_t batch = (size_t)s->batch, hidden = (size_t)hp->hidden, ffn = (size_t)hp->ffn;
    const size_t q_cols = (size_t)hp->heads * (size_t)hp->head_dim,
                 kv_cols = (size_t)hp->kv_heads * (size_t)hp->head_dim;
    const size_t values = (size_t)tp_values_of(hp), channels = (size_t)tp_channels_of(hp);
    const size_t widest = larger(larger(hidden, ffn), larger(q_cols, values)),
                 padded = (widest + 255) / 256 * 256;
    const size_t rows = s->model->recurrent_layers ? larger(batch, TP_KEPT) : batch,
                 gates = hp->gated_attention ? 2 * q_cols : 0;
    int fine = 1;
#define TAKE(pointer, count, size) fine = fine && ((pointer) = tp_alloc(count, size)) != NULL
    TAKE(s->used, (size_t)tp_kernel_count(), 1);
    TAKE(s->rows, batch, sizeof *s->rows);
    TAKE(s->runs, batch, sizeof *s->runs);
    TAKE(s->x, batch, hidden * sizeof(float));
    TAKE(s->h, batch, widest * sizeof(float));
    if (has_own_norms(s->model)) TAKE(s->normed, batch, widest * sizeof(float));
    if (has_rotated(s->model)) TAKE(s->rotated, batch, widest * sizeof(float));
    TAKE(s->q, batch, larger(q_cols, values) * sizeof(float));
    s->z = s->q;
    TAKE(s->k, batch, kv_cols * sizeof(float));
    TAKE(s->v, batch, kv_cols * sizeof(float));
    TAKE(s->gate, rows, larger(larger(ffn, channels), gates) * sizeof(float));
    s->channels = s->gate;
    s->q_gate = gates ? s->gate : NULL;
    TAKE(s->up, rows, larger(larger(ffn, q_cols), values) * sizeof(float));
    s->mixed = s->delta = s->up;
    TAKE(s->add, batch, hidden * sizeof(float));
    TAKE(s->cos_sin[0], batch, (size_t)hp->head_dim * sizeof(float));
    if (hp->inv_freq_sliding) TAKE(s->cos_sin[1], batch, (size_t)hp->head_dim * sizeof(float));
    TAKE(s->work, (size_t)threads, (uint64_t)tp_attention_floats(s) * sizeof(float));
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
    return fine ? allocate_recurrence(s, rows) : TP_ERR_MEMORY;
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
    int status = tp_sequence_init(&s->own, s, s->n_ctx);
    s->own.is_own = 1;
    if (!status) status = allocate(s, threads);
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
    tp_sequence_drop(&s->own);
    void *const parts[] = {s->used,    s->rows,    s->runs,   s->x,          s->h,
                           s->normed,  s->rotated, s->q,      s->k,          s->v,
                           s->gate,    s->up,      s->add,    s->cos_sin[0], s->cos_sin[1],
                           s->work,    s->acts.q,  s->acts.s, s->acts.sum,   s->acts.ordered,
                           s->scratch, s->acts16,  s->alpha,  s->beta,       s->unit};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) tp_free(parts[i]);
    tp_free(s);
}
