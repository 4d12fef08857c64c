/* Attention of a batch: RoPE, the caches, and what reads them. Loops over tokens or heads go to the
 * pool. No result depends on how they are cut, or on what other sequences are in the batch. */
#include <string.h>

#include "kv_cache.h"

/* ---- what enters the cache ---- */

/* The first KV head of the layer at work, counted through all layers with attention. */
static int64_t first_head(const tp_session *s) {
    return (int64_t)s->model->place[s->layer_index] * s->model->hp.kv_heads;
}

static void store(const tp_session *s, const tp_row *row, int64_t head, const float *k,
                  const float *v) {
    const tp_sequence *const q = row->sequence;
    uint8_t *const keys = tp_kv_at(q, q->k_cache, first_head(s) + head, row->position);
    uint8_t *const values = tp_kv_at(q, q->v_cache, first_head(s) + head, row->position);
    const int64_t dim = s->model->hp.head_dim, within = row->position % TP_KV_BLOCK;
    if (s->kv_type == TP_KV_I16) {
        s->cache16->cache16(k, v, dim, within, keys, values);
        return;
    }
    float *const to = (float *)(void *)keys;
    for (int64_t i = 0; i < dim; i++) to[cache32_key(within, i, dim)] = k[i];
    memcpy((float *)(void *)values + within * dim, v, (size_t)dim * sizeof(float));
}

static void norm_heads(const tp_session *s, float *x, int64_t heads, const tp_tensor *norm) {
    const int64_t dim = s->model->hp.head_dim;
    for (int64_t h = 0; norm->data && h < heads; h++)
        s->rmsnorm->rmsnorm(x + h * dim, norm->data, dim, s->model->hp.norm_eps, x + h * dim);
}

/* The queries, without the gates that stand behind each. */
static void take_queries(const tp_session *s, int64_t t, float *q /* (heads, head_dim) */) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t dim = hp->head_dim;
    for (int64_t h = 0; hp->gated_attention && h < hp->heads; h++)
        memcpy(q + h * dim, s->q_gate + (t * hp->heads + h) * 2 * dim, (size_t)dim * sizeof(float));
}

static void rope(const tp_session *s, float *x, int64_t heads, const float *cos_sin) {
    const int64_t dim = s->model->hp.head_dim, turned = s->model->hp.rotary_dim;
    if (turned == dim) s->rope->rope(x, heads, dim, cos_sin);
    else
        for (int64_t h = 0; h < heads; h++) s->rope->rope(x + h * dim, 1, turned, cos_sin);
}

static void rope_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const tp_hparams *hp = &s->model->hp;
    const int64_t dim = hp->head_dim;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *q = s->q + t * hp->heads * dim, *k = s->k + t * hp->kv_heads * dim;
        const float *cos_sin = s->cos_sin[s->layer->slides != 0] + t * hp->rotary_dim;
        take_queries(s, t, q);
        norm_heads(s, q, hp->heads, &s->layer->attn_q_norm);
        norm_heads(s, k, hp->kv_heads, &s->layer->attn_k_norm);
        rope(s, q, hp->heads, cos_sin);
        rope(s, k, hp->kv_heads, cos_sin);
        for (int64_t h = 0; h < hp->kv_heads; h++)
            store(s, &s->rows[t], h, k + h * dim, s->v + (t * hp->kv_heads + h) * dim);
    }
}

void tp_rope_and_store(tp_session *s) {
    tp_pool_run(s->pool, rope_tokens, s, s->n, 1);
    tp_mark(s, s->rope);
    if (s->kv_type == TP_KV_I16) tp_mark(s, s->cache16);
}

/* ---- what reads it ---- */

/* Floats between the scores of two rows, if the last of them sees n positions. */
static int64_t scores_stride(int64_t n) { return (n + 15) / 16 * 16 + 16; }

/* Tokens that read a cache together make, with the heads that share it, up to sixty-four rows, as
 * far as MANY_SCORES holds their scores: the more rows, the fewer times a long cache is read from
 * beyond the L2 cache. Sixteen rows are always possible. */
enum { ROWS = 16, MOST_ROWS = 64, MANY_SCORES = 320 << 10 };

static int64_t tokens_of(const tp_session *s, int64_t rows) {
    const int64_t group = s->model->hp.heads / s->model->hp.kv_heads,
                  tokens = group < rows ? rows / group : 1;
    return tokens < s->batch ? tokens : s->batch;
}

/* How many tokens read a cache together, at most, if the last one sees n positions. */
static int64_t most_tokens(const tp_session *s, int64_t n) {
    const int64_t most = MANY_SCORES / scores_stride(n);
    return tokens_of(s, most < ROWS ? ROWS : most < MOST_ROWS ? most : MOST_ROWS);
}

int64_t tp_attention_floats(const tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t heads = hp->heads / hp->kv_heads;
    const int64_t least = tp_attention_work(tokens_of(s, ROWS), heads, hp->head_dim,
                                            scores_stride(s->n_ctx)),
                  many = MANY_SCORES +
                         tp_attention_work(tokens_of(s, MOST_ROWS), heads, hp->head_dim, 0);
    return least > many ? least : many;
}

/* ---- how the work is split ---- */

/* Pieces of the whole batch, if all its runs are cut like this one. */
static int64_t pieces_of(const tp_session *s, const tp_run *r, int64_t tokens) {
    return (r->n + tokens - 1) / tokens * s->model->hp.kv_heads * s->run_count;
}

/* A piece of work is a block of `tokens` tokens of a run with one of `parts` parts of the heads
 * that share a cache. If threads would have nothing to do, or to wait long for the last one, a
 * piece takes fewer tokens, and then fewer heads. Once a window slides, each token is a block,
 * since each begins at another position. */
static void split_run(const tp_session *s, tp_run *r) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t group = hp->heads / hp->kv_heads, seen = r->position + r->n,
                  few = tokens_of(s, ROWS), most = most_tokens(s, seen);
    const int threads = tp_pool_threads(s->pool), alone = s->layer->slides && seen > hp->window;
    int64_t tokens = alone ? 1 : r->n < most ? r->n : most;
    while (tokens > few && pieces_of(s, r, tokens) < 8 * threads) tokens = (tokens + 1) / 2;
    while (tokens > 1 && pieces_of(s, r, tokens) < threads) tokens = (tokens + 1) / 2;
    r->tokens = tokens;
    r->blocks = (r->n + tokens - 1) / tokens;
    r->parts = 1;
    while (r->parts < group && (group % r->parts || pieces_of(s, r, tokens) * r->parts < threads))
        r->parts++;
}

/* Splits all runs. Returns the number of pieces. */
static int64_t split_runs(tp_session *s) {
    int64_t pieces = 0;
    for (int64_t i = 0; i < s->run_count; i++) {
        tp_run *r = &s->runs[i];
        split_run(s, r);
        r->piece = pieces;
        pieces += r->blocks * s->model->hp.kv_heads * r->parts;
    }
    return pieces;
}

/* The run that a piece belongs to. */
static const tp_run *run_of(const tp_session *s, int64_t piece) {
    int64_t low = 0, high = s->run_count;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (s->runs[middle].piece <= piece) low = middle;
        else high = middle;
    }
    return &s->runs[low];
}

static void attend_piece(tp_session *s, int thread, const tp_run *r, int64_t piece) {
    const tp_hparams *hp = &s->model->hp;
    const tp_sequence *const sequence = r->sequence;
    /* A piece counts blocks first, then parts, then kv heads, so that neighbours read the same
     * cache. */
    const int64_t heads = hp->heads / hp->kv_heads / r->parts,
                  head = piece / r->blocks * heads, /* of the queries */
        kv = first_head(s) + piece / r->blocks / r->parts, t = piece % r->blocks * r->tokens;
    const int64_t at = ((r->row + t) * hp->heads + head) * hp->head_dim, seen = r->position + t + 1;
    const int64_t first = s->layer->slides && seen > hp->window ? seen - hp->window : 0,
                  skip = first % TP_KV_BLOCK;
    s->attention->attention(&(tp_attention){.q = s->q + at,
                                            .out = s->mixed + at,
                                            .k = tp_kv_at(sequence, sequence->k_cache, kv, first),
                                            .v = tp_kv_at(sequence, sequence->v_cache, kv, first),
                                            .tokens = t + r->tokens < r->n ? r->tokens : r->n - t,
                                            .heads = heads,
                                            .head_dim = hp->head_dim,
                                            .stride = (int64_t)hp->heads * hp->head_dim,
                                            .n_pos = seen - first + skip,
                                            .skip = skip,
                                            .scale = hp->attention_scale,
                                            .prefetch = r->n == 1,
                                            .ld = scores_stride(r->position + r->n),
                                            .work = s->work + thread * tp_attention_floats(s)});
}

static void attend(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    for (int64_t i = begin; i < end; i++) {
        const tp_run *r = run_of(s, i);
        attend_piece(s, thread, r, i - r->piece);
    }
}

void tp_attention_run(tp_session *s) {
    tp_pool_run(s->pool, attend, s, split_runs(s), 1);
    tp_mark(s, s->attention);
    if (s->model->hp.gated_attention) tp_mark(s, s->glu);
}

void tp_gated_row(tp_session *s, int64_t token, float *row) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t dim = hp->head_dim;
    for (int64_t h = 0; h < hp->heads; h++) {
        const int64_t at = token * hp->heads + h;
        s->glu->glu(s->q_gate + (2 * at + 1) * dim, s->mixed + at * dim, dim, TP_ACT_SIGMOID,
                    row + h * dim);
    }
}
