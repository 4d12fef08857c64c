/* Attention of heads and tokens that share keys and values, all in floats. A row is one head of
 * one token. Rows are worked on ROWS at a time, so that a key or value serves several while it
 * is in a register, and blocks of positions pass all rows while they are in the first cache. The
 * order of every sum is that of attention_f32_scalar. */
#ifndef TRITPACK_ATTENTION_H
#define TRITPACK_ATTENTION_H

#include "../simd_f32/lanes16.h"
#include "../stream.h"

#if LANES_NATIVE == 16
enum {
    ROWS = 4,
    WIDE = 4
}; /* rows worked on together; lane groups of the output kept in registers */
#else
enum { ROWS = 2, WIDE = 2 };
#endif
enum { KEYS = 32, VALUES = 32 }; /* positions a block */

/* What a call works on. Rows stand one after the other: those of one token do, those of several
 * are copied so. */
typedef struct attention {
    const float *q, *k, *v; /* (rows, head_dim), (positions, head_dim) */
    float *scores, *out;    /* (rows, ld), (rows, head_dim) */
    int64_t ld;
    float scale;
    int prefetch;
} attention;

/* Scores of TREES / rows keys from p on (`whole`: all are there; else the last one again after
 * n_pos) for rows from `first` on. */
#define KEY(j) (a.k + (whole || p + (j) < n_pos ? p + (j) : n_pos - 1) * head_dim)
TP_INLINE void score_keys(const attention a, int64_t first, const int rows, const int whole,
                          int64_t p, int64_t n_pos, const int64_t head_dim) {
    const int keys = TREES / rows;
    const float *const q = a.q + first * head_dim;
    lanes acc[TREES]; /* (rows, keys) */
#pragma GCC unroll 16
    for (int j = 0; j < TREES; j++) acc[j] = lanes_splat(0.0f);
    int64_t i = 0;
    for (; i + 16 <= head_dim; i += 16) {
        lanes x[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) x[r] = lanes_load(q + r * head_dim + i);
        if (a.prefetch) /* in the cache's order, not in that of the loads */
#pragma GCC unroll 16
            for (int j = 0; j < keys; j++)
                stream_from((uintptr_t)KEY(0) + 4 * (uintptr_t)(keys * i) + 64 * (uintptr_t)j);
#pragma GCC unroll 16
        for (int j = 0; j < keys; j++) {
            const lanes y = lanes_load(KEY(j) + i);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                acc[r * keys + j] = lanes_add(acc[r * keys + j], lanes_mul(x[r], y));
        }
    }
    if (i < head_dim)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const lanes x = lanes_load_n(q + r * head_dim + i, head_dim - i);
#pragma GCC unroll 16
            for (int j = 0; j < keys; j++)
                acc[r * keys + j] = lanes_add(acc[r * keys + j],
                                              lanes_mul(x, lanes_load_n(KEY(j) + i, head_dim - i)));
        }
    float trees[TREES];
    lanes_trees(acc, trees);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int j = 0; j < keys; j++)
            a.scores[(first + r) * a.ld + p + j] = trees[r * keys + j] * a.scale;
}

TP_INLINE void score_block(const attention a, int64_t first, const int rows, int64_t begin,
                           int64_t end, int64_t n_pos, const int64_t head_dim) {
    int64_t p = begin;
    for (; p + TREES / rows <= end; p += TREES / rows)
        score_keys(a, first, rows, 1, p, n_pos, head_dim);
    if (p < end) score_keys(a, first, rows, 0, p, n_pos, head_dim);
}

/* Scores to their exponentials; gives 1 / (their sum). */
TP_INLINE float softmax(float *scores, int64_t n_pos) {
    const int64_t padded = (n_pos + 15) / 16 * 16;
    const float none = -tp_bits_float(TP_INF_BITS);
    for (int64_t p = n_pos; p < padded; p++) scores[p] = none; /* exp gives +0 */
    lanes most = lanes_load(scores), sum = lanes_splat(0.0f);
    for (int64_t p = 16; p < padded; p += 16) most = lanes_max(most, lanes_load(scores + p));
    const lanes shift = lanes_splat(lanes_highest(most));
    for (int64_t p = 0; p < padded; p += 16) {
        const lanes e = lanes_exp_negative(lanes_sub(lanes_load(scores + p), shift));
        lanes_store(scores + p, e);
        sum = lanes_add(sum, e);
    }
    return 1.0f / lanes_tree(sum);
}

/* out += sum over positions begin .. end - 1 of e[p] * v[p], for `groups` lane groups from
 * column i on. */
TP_INLINE void mix(const attention a, int64_t first, const int rows, int64_t begin, int64_t end,
                   int64_t i, const int groups, const int64_t head_dim) {
    const float *v = a.v + begin * head_dim + i;
    const float *const e = a.scores + first * a.ld;
    float *const out = a.out + first * head_dim + i;
    /* In the cache's order: the columns before i have asked for as much as they have read. */
    uintptr_t ahead = (uintptr_t)(a.v + begin * head_dim + i * (end - begin));
    lanes acc[ROWS][WIDE];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++) acc[r][j] = lanes_load(out + r * head_dim + 16 * j);
    for (int64_t p = begin; p < end; p++, v += head_dim) {
        lanes value[WIDE];
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++) value[j] = lanes_load(v + 16 * j);
        if (a.prefetch)
#pragma GCC unroll 4
            for (int j = 0; j < groups; j++) stream_from(ahead + 64 * (uintptr_t)j);
        ahead += 64 * (uintptr_t)groups;
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const lanes w = lanes_splat(e[r * a.ld + p]);
#pragma GCC unroll 4
            for (int j = 0; j < groups; j++)
                acc[r][j] = lanes_add(acc[r][j], lanes_mul(w, value[j]));
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++) lanes_store(out + r * head_dim + 16 * j, acc[r][j]);
}

TP_INLINE void mix_block(const attention a, int64_t first, const int rows, int64_t begin,
                         int64_t end, const int64_t head_dim) {
    int64_t i = 0;
    for (; i + 16 * WIDE <= head_dim; i += 16 * WIDE)
        mix(a, first, rows, begin, end, i, WIDE, head_dim);
    for (; i + 16 <= head_dim; i += 16) mix(a, first, rows, begin, end, i, 1, head_dim);
    for (int64_t r = first; i < head_dim && r < first + rows; r++) {
        lanes acc = lanes_load_n(a.out + r * head_dim + i, head_dim - i);
        for (int64_t p = begin; p < end; p++)
            acc = lanes_add(acc, lanes_mul(lanes_splat(a.scores[r * a.ld + p]),
                                           lanes_load_n(a.v + p * head_dim + i, head_dim - i)));
        lanes_store_n(a.out + r * head_dim + i, acc, head_dim - i);
    }
}

TP_INLINE void copy_tokens(float *to, int64_t to_stride, const float *from, int64_t from_stride,
                           int64_t tokens, int64_t n) {
    for (int64_t t = 0; t < tokens; t++)
        memcpy(to + t * to_stride, from + t * from_stride, (size_t)n * sizeof(float));
}

TP_INLINE void attend_all(const tp_attention *job, const int64_t head_dim) {
    const int64_t tokens = job->tokens, rows = tokens * job->heads, n = job->heads * head_dim,
                  sees = job->n_pos, last = sees + tokens - 1;
    const int several = tokens > 1;
    float *const inverse = job->work + rows * job->ld, *const copy = inverse + rows;
    attention a = {several ? copy : job->q,
                   job->k,
                   job->v,
                   job->work,
                   several ? copy + rows * head_dim : job->out,
                   job->ld,
                   job->scale,
                   job->prefetch};
    if (several) copy_tokens(copy, n, job->q, job->stride, tokens, n);
    for (int64_t p = 0, r = 0; p < last;
         p += KEYS, r = 0) { /* all positions: softmax forgets those that a row does not see */
        const int64_t end = p + KEYS < last ? p + KEYS : last;
        a.prefetch = job->prefetch;
        for (; r + ROWS <= rows; r += ROWS, a.prefetch = 0)
            score_block(a, r, ROWS, p, end, last,
                        head_dim); /* the first rows of a block ask for it */
        for (; r < rows; r++, a.prefetch = 0) score_block(a, r, 1, p, end, last, head_dim);
    }
    for (int64_t r = 0; r < rows; r++)
        inverse[r] = softmax(a.scores + r * a.ld, sees + r / job->heads);
    memset(a.out, 0, (size_t)(rows * head_dim) * sizeof(float));
    for (int64_t p = 0, r = 0; p < sees; p += VALUES, r = 0) { /* what all rows see */
        const int64_t end = p + VALUES < sees ? p + VALUES : sees;
        a.prefetch = job->prefetch;
        for (; r + ROWS <= rows; r += ROWS, a.prefetch = 0) mix_block(a, r, ROWS, p, end, head_dim);
        for (; r < rows; r++, a.prefetch = 0) mix_block(a, r, 1, p, end, head_dim);
    }
    for (int64_t r = 0; r < rows; r++) {
        if (r >= job->heads) mix_block(a, r, 1, sees, sees + r / job->heads, head_dim);
        for (int64_t i = 0; i < head_dim; i++) a.out[r * head_dim + i] *= inverse[r];
    }
    if (several) copy_tokens(job->out, job->stride, a.out, n, tokens, n);
}

TP_INLINE void attention_body(const tp_attention *job) {
    assert(job->n_pos > 0 && job->skip == 0 && job->tokens > 0 &&
           job->ld >= (job->n_pos + job->tokens - 1 + 15) / 16 * 16);
    const tp_prefetch keys = {(uintptr_t)job->k,
                              (uint64_t)(job->n_pos * job->head_dim) * sizeof(float)},
                      values = {(uintptr_t)job->v, keys.bytes};
    if (job->prefetch) {
        stream_start(keys);
        stream_start(values);
    }
    if (job->head_dim == 128)
        attend_all(job, 128); /* nearly every model: offsets that the compiler knows */
    else attend_all(job, job->head_dim);
}

#endif
