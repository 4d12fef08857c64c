/* Attention of a batch: RoPE, the cache, and what reads it. Loops over tokens or heads go to the
 * pool. No result depends on how they are cut. */
#include <string.h>

#include "kv_cache.h"

/* ---- what enters the cache ---- */

static void store(const tp_session *s, int64_t head, int64_t position, const float *k,
                  const float *v) {
    uint8_t *const keys = tp_kv_at(s, s->k_cache, head, position);
    uint8_t *const values = tp_kv_at(s, s->v_cache, head, position);
    const int64_t dim = s->model->hp.head_dim, within = position % TP_KV_BLOCK;
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
        for (int64_t h = 0; h < hp->kv_heads; h++)
            store(s, h, s->n_past + t, k + h * dim, s->v + (t * hp->kv_heads + h) * dim);
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

/* How the work is split. A piece is a block of `tokens` tokens with one of `parts` parts of the
 * heads that share a cache; there are `blocks` blocks. */
typedef struct attention_split {
    int64_t tokens, blocks, parts;
} attention_split;

static int64_t pieces_of(const tp_session *s, int64_t tokens) {
    return (s->n + tokens - 1) / tokens * s->model->hp.kv_heads;
}

/* If threads would have nothing to do, or to wait long for the last one, a piece takes fewer
 * tokens, and then fewer heads. Once a window slides, each token is a block, since each begins at
 * another position. */
static attention_split split_attention(const tp_session *s) {
    const tp_hparams *hp = &s->model->hp;
    const int64_t group = hp->heads / hp->kv_heads, most = most_tokens(s, s->n_past + s->n);
    const int threads = tp_pool_threads(s->pool),
              alone = s->layer->slides && s->n_past + s->n > hp->window;
    attention_split a = {.tokens = s->n < most ? s->n : most, .parts = 1};
    const int64_t few = tokens_of(s, ROWS);
    if (alone) a.tokens = 1;
    while (a.tokens > few && pieces_of(s, a.tokens) < 8 * threads) a.tokens = (a.tokens + 1) / 2;
    while (a.tokens > 1 && pieces_of(s, a.tokens) < threads) a.tokens = (a.tokens + 1) / 2;
    a.blocks = (s->n + a.tokens - 1) / a.tokens;
    while (a.parts < group && (group % a.parts || a.blocks * hp->kv_heads * a.parts < threads))
        a.parts++;
    return a;
}

static void attend(void *ctx, int thread, int64_t begin, int64_t end) {
    tp_session *s = ctx;
    const tp_hparams *hp = &s->model->hp;
    const attention_split a = split_attention(s);
    const int64_t heads = hp->heads / hp->kv_heads / a.parts;
    /* i counts blocks first, then parts, then kv heads, so that neighbours read the same cache. */
    for (int64_t i = begin; i < end; i++) {
        const int64_t first_head = i / a.blocks * heads, t = i % a.blocks * a.tokens,
                      kv = i / a.blocks / a.parts;
        const int64_t at = (t * hp->heads + first_head) * hp->head_dim, seen = s->n_past + t + 1;
        const int64_t first = s->layer->slides && seen > hp->window ? seen - hp->window : 0,
                      skip = first % TP_KV_BLOCK;
        s->attention->attention(&(tp_attention){.q = s->q + at,
                                                .out = s->mixed + at,
                                                .k = tp_kv_at(s, s->k_cache, kv, first),
                                                .v = tp_kv_at(s, s->v_cache, kv, first),
                                                .tokens = t + a.tokens < s->n ? a.tokens : s->n - t,
                                                .heads = heads,
                                                .head_dim = hp->head_dim,
                                                .stride = (int64_t)hp->heads * hp->head_dim,
                                                .n_pos = seen - first + skip,
                                                .skip = skip,
                                                .scale = hp->attention_scale,
                                                .prefetch = s->n == 1,
                                                .ld = scores_stride(s->n_past + s->n),
                                                .work = s->work + thread * tp_attention_floats(s)});
    }
}

void tp_attention_run(tp_session *s) {
    const attention_split a = split_attention(s);
    tp_pool_run(s->pool, attend, s, a.blocks * s->model->hp.kv_heads * a.parts, 1);
    tp_mark(s, s->attention);
}
