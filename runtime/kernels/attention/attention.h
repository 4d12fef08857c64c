/* Attention of heads that share keys and values. The including file defines CACHED (element type of the
 * cache), LOAD(p) and LOAD_N(p, n). A key or value serves several heads while it is in a register: the cache is read once. The
 * order of every sum is that of attention_f32_scalar.c. */
#include "../lanes16.h"
#include "../stream.h"

#if LANES_NATIVE == 16
enum { HEADS = 4, WIDE = 4 };       /* heads worked on together; lane groups of the output kept in registers */
#else
enum { HEADS = 2, WIDE = 2 };
#endif

/* Scores of TREES / heads keys from p on (`whole`: all are there; else the last one over again behind n_pos) for `heads` heads. */
#define KEY(j) (k + (whole || p + (j) < n_pos ? p + (j) : n_pos - 1) * head_dim)
LANES_INLINE void score_keys(const float *q, const int heads, const CACHED *k /* (n_pos, head_dim) */, const int whole, int64_t p, int64_t n_pos, const int64_t head_dim,
                             float scale, int cold, float *scores, int64_t ld) {
    const int keys = TREES / heads;
    lanes acc[TREES];       /* (heads, keys) */
#pragma GCC unroll 16
    for (int j = 0; j < TREES; j++) acc[j] = lanes_splat(0.0f);
    int64_t i = 0;
    for (; i + 16 <= head_dim; i += 16) {
        lanes x[HEADS];
#pragma GCC unroll 4
        for (int h = 0; h < heads; h++) x[h] = lanes_load(q + h * head_dim + i);
        if (cold && i * (int64_t)sizeof(CACHED) % 64 == 0)
#pragma GCC unroll 16
            for (int j = 0; j < keys; j++) stream_ahead(KEY(j) + i);
#pragma GCC unroll 16
        for (int j = 0; j < keys; j++) {
            const lanes y = LOAD(KEY(j) + i);
#pragma GCC unroll 4
            for (int h = 0; h < heads; h++) acc[h * keys + j] = lanes_add(acc[h * keys + j], lanes_mul(x[h], y));
        }
    }
    if (i < head_dim)
#pragma GCC unroll 4
        for (int h = 0; h < heads; h++) {
            const lanes x = lanes_load_n(q + h * head_dim + i, head_dim - i);
#pragma GCC unroll 16
            for (int j = 0; j < keys; j++) acc[h * keys + j] = lanes_add(acc[h * keys + j], lanes_mul(x, LOAD_N(KEY(j) + i, head_dim - i)));
        }
    float trees[TREES];
    lanes_trees(acc, trees);
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 16
        for (int j = 0; j < keys; j++) scores[h * ld + p + j] = trees[h * keys + j] * scale;
}

/* out = (sum over p of e[p] * v[p]) * by for `groups` lane groups from where v and out point to, and `heads` heads. */
LANES_INLINE void mix(const float *e, int64_t ld, const int heads, const CACHED *v, int64_t n_pos, const int64_t head_dim, const float *by, const int groups,
                      int cold, float *out) {
    lanes acc[HEADS][WIDE];
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++) acc[h][j] = lanes_splat(0.0f);
    for (int64_t p = 0; p < n_pos; p++, v += head_dim) {
        lanes value[WIDE];
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++) {
            if (cold && 16 * j * (int)sizeof(CACHED) % 64 == 0) stream_ahead(v + 16 * j);
            value[j] = LOAD(v + 16 * j);
        }
#pragma GCC unroll 4
        for (int h = 0; h < heads; h++) {
            const lanes w = lanes_splat(e[h * ld + p]);
#pragma GCC unroll 4
            for (int j = 0; j < groups; j++) acc[h][j] = lanes_add(acc[h][j], lanes_mul(w, value[j]));
        }
    }
#pragma GCC unroll 4
    for (int h = 0; h < heads; h++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++) lanes_store(out + h * head_dim + 16 * j, lanes_mul(acc[h][j], lanes_splat(by[h])));
}

/* Scores to their exponentials; gives 1 / (their sum). */
LANES_INLINE float softmax(float *scores, int64_t n_pos) {
    const int64_t padded = (n_pos + 15) / 16 * 16;
    const float none = -tp_bits_float(TP_INF_BITS);
    for (int64_t p = n_pos; p < padded; p++) scores[p] = none;      /* exp gives +0 */
    lanes most = lanes_load(scores), sum = lanes_splat(0.0f);
    for (int64_t p = 16; p < padded; p += 16) most = lanes_max(most, lanes_load(scores + p));
    const lanes shift = lanes_splat(lanes_highest(most));
    for (int64_t p = 0; p < padded; p += 16) {
        const lanes e = lanes_exp(lanes_sub(lanes_load(scores + p), shift));
        lanes_store(scores + p, e);
        sum = lanes_add(sum, e);
    }
    return 1.0f / lanes_tree(sum);
}

LANES_INLINE void some_heads(const float *q, const int heads, const CACHED *k, const CACHED *v, int64_t n_pos, const int64_t head_dim, float scale,
                             int cold, float *scores, int64_t ld, float *out) {
    float by[HEADS];
    int64_t p = 0;
    for (; p + TREES / heads <= n_pos; p += TREES / heads) score_keys(q, heads, k, 1, p, n_pos, head_dim, scale, cold, scores, ld);
    if (p < n_pos) score_keys(q, heads, k, 0, p, n_pos, head_dim, scale, cold, scores, ld);
    for (int h = 0; h < heads; h++) by[h] = softmax(scores + h * ld, n_pos);
    int64_t i = 0;
    for (; i + 16 * WIDE <= head_dim; i += 16 * WIDE) mix(scores, ld, heads, v + i, n_pos, head_dim, by, WIDE, cold, out + i);
    for (; i + 16 <= head_dim; i += 16) mix(scores, ld, heads, v + i, n_pos, head_dim, by, 1, cold, out + i);
    for (int h = 0; i < head_dim && h < heads; h++) {
        lanes acc = lanes_splat(0.0f);
        for (int64_t p = 0; p < n_pos; p++)
            acc = lanes_add(acc, lanes_mul(lanes_splat(scores[h * ld + p]), LOAD_N(v + p * head_dim + i, head_dim - i)));
        lanes_store_n(out + h * head_dim + i, lanes_mul(acc, lanes_splat(by[h])), head_dim - i);
    }
}

LANES_INLINE void all_heads(const float *q, int64_t heads, const CACHED *k, const CACHED *v, int64_t n_pos, const int64_t head_dim, float scale, int cold,
                            float *scores, int64_t ld, float *out) {
    int64_t h = 0;
    for (; h + HEADS <= heads; h += HEADS)
        some_heads(q + h * head_dim, HEADS, k, v, n_pos, head_dim, scale, cold, scores + h * ld, ld, out + h * head_dim);
    for (; h < heads; h++) some_heads(q + h * head_dim, 1, k, v, n_pos, head_dim, scale, cold, scores + h * ld, ld, out + h * head_dim);
}

LANES_INLINE void attention_body(const float *q, int64_t heads, const CACHED *k, const CACHED *v, int64_t n_pos, int64_t head_dim, float scale, int cold,
                                 float *scores, int64_t ld, float *out) {
    assert(n_pos > 0 && ld >= (n_pos + 15) / 16 * 16);
    const tp_ahead keys = {(uintptr_t)k, (uint64_t)(n_pos * head_dim) * sizeof *k}, values = {(uintptr_t)v, keys.bytes};
    if (cold) {
        stream_start(keys);
        stream_start(values);
    }
    if (head_dim == 128) all_heads(q, heads, k, v, n_pos, 128, scale, cold, scores, ld, out);      /* nearly every model: offsets the compiler knows */
    else all_heads(q, heads, k, v, n_pos, head_dim, scale, cold, scores, ld, out);
}
