/* Attention of heads and tokens that share keys and values, all in floats. A row is one head of
 * one token. Rows are worked on ROWS at a time, so that a key or value serves several while it
 * is in a register, and blocks of positions pass all rows while they are in the first cache. The
 * order of every sum is that of attention_f32_scalar. */
#ifndef TRITPACK_ATTENTION_H
#define TRITPACK_ATTENTION_H

#include "../simd_f32/lanes16.h"
#include "../stream.h"
#include "cache32.h"

/* In registers: rows, lane groups of the output, words of positions. VALUES: positions whose values
 * stay in the first cache. */
#if LANES_NATIVE == 16
enum { ROWS = 4, WIDE = 4 };
#else
enum { ROWS = 2, WIDE = 2 };
#endif
enum { WORDS = 4, VALUES = 32, TOGETHER = WORDS / LANES_PARTS /* blocks of keys */ };

/* What a call works on. Rows stand one after the other: those of one token do, those of several
 * are copied so. */
typedef struct attention {
    const float *q, *k, *v; /* (rows, head_dim), blocks of cache32.h, (positions, head_dim) */
    float *scores, *out;    /* (rows, ld), (rows, head_dim) */
    int64_t ld;
    float scale;
    int prefetch;
} attention;

/* Scores of `rows` rows for some blocks from block b on. A lane of a word is a position. The
 * sixteen lanes of the specification are sums one after the other, in the order in which the
 * tree adds them up: of two that meet, the earlier one waits in `left`. */
TP_INLINE void score(const attention a, int64_t first, const int rows, int64_t b, const int blocks,
                     const int64_t head_dim) {
    const int words = blocks * LANES_PARTS;
    const float *const q = a.q + first * head_dim, *const k = a.k + b * 16 * head_dim;
    vf left[4][ROWS][WORDS];
    uintptr_t ahead = (uintptr_t)k;
    for (unsigned step = 0; step < 16; step++) {
        const int64_t lane = (step & 1) << 3 | (step & 2) << 1 | (step & 4) >> 1 | step >> 3;
        vf sum[ROWS][WORDS];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int w = 0; w < words; w++) sum[r][w] = vf_splat(0.0f);
        for (int64_t i = lane; i < head_dim; i += 16) {
            vf key[WORDS];
#pragma GCC unroll 4
            for (int w = 0; w < words; w++)
                key[w] = (vf_load(k + w / LANES_PARTS * 16 * head_dim + i * 16 +
                                  w % LANES_PARTS * LANES_NATIVE));
            if (a.prefetch) /* in the cache's order, not in that of the loads */
#pragma GCC unroll 4
                for (int j = 0; j < blocks; j++, ahead += 64) stream_from(ahead);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const vf x = vf_splat(q[r * head_dim + i]);
#pragma GCC unroll 4
                for (int w = 0; w < words; w++) sum[r][w] += x * key[w];
            }
        }
        int level = 0;
        for (; step >> level & 1; level++)
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
                for (int w = 0; w < words; w++) sum[r][w] = left[level][r][w] + sum[r][w];
        if (level < 4)
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
                for (int w = 0; w < words; w++) left[level][r][w] = sum[r][w];
        else
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
                for (int w = 0; w < words; w++)
                    vf_store(a.scores + (first + r) * a.ld + 16 * b + w * LANES_NATIVE,
                             sum[r][w] * vf_splat(a.scale));
    }
}

TP_INLINE void score_rows(const attention a, int64_t first, const int rows, int64_t b,
                          int64_t blocks, const int64_t head_dim) {
    if (blocks == TOGETHER) {
        score(a, first, rows, b, TOGETHER, head_dim);
        return;
    }
    for (int64_t more = 0; more < blocks; more++) score(a, first, rows, b + more, 1, head_dim);
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
    if (begin >= end) return;
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

/* Rows come token by token, and each token sees one position more. The first row that sees more
 * than `behind` positions after those that all see, or one of few before it. */
TP_INLINE int64_t first_row(int64_t behind, int64_t heads) {
    return behind < 0 ? 0 : (behind + 1) * heads / ROWS * ROWS;
}
TP_INLINE int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }
TP_INLINE int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

TP_INLINE void attend_all(const tp_attention *job, const int64_t head_dim) {
    const int64_t tokens = job->tokens, rows = tokens * job->heads, n = job->heads * head_dim,
                  skip = job->skip, sees = job->n_pos, last = sees + tokens - 1,
                  blocks = (last + 15) / 16;
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
    /* Blocks that some of the rows see; softmax forgets the positions that a row does not. */
    for (int64_t b = 0; b < blocks; b += TOGETHER) {
        const int64_t more = b + TOGETHER < blocks ? TOGETHER : blocks - b;
        int64_t r = first_row(16 * b - sees, job->heads);
        a.prefetch = job->prefetch; /* the first rows of a block ask for it */
        for (; r + ROWS <= rows; r += ROWS, a.prefetch = 0)
            score_rows(a, r, ROWS, b, more, head_dim);
        for (; r < rows; r++, a.prefetch = 0) score_rows(a, r, 1, b, more, head_dim);
    }
    for (int64_t r = 0; r < rows; r++)
        inverse[r] = softmax(a.scores + r * a.ld + skip, sees - skip + r / job->heads);
    memset(a.out, 0, (size_t)(rows * head_dim) * sizeof(float));
    for (int64_t p = skip; p < last; p += VALUES) {
        int64_t r = first_row(p - sees, job->heads);
        a.prefetch = job->prefetch;
        for (; r + ROWS <= rows; r += ROWS, a.prefetch = 0) {
            const int64_t all = later(p, earlier(p + VALUES, sees + r / job->heads));
            mix_block(a, r, ROWS, p, all, head_dim); /* what all of them see */
            for (int64_t i = r + 1; i < r + ROWS; i++)
                mix_block(a, i, 1, all, earlier(p + VALUES, sees + i / job->heads), head_dim);
        }
        for (; r < rows; r++, a.prefetch = 0)
            mix_block(a, r, 1, p, earlier(p + VALUES, sees + r / job->heads), head_dim);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < head_dim; i++) a.out[r * head_dim + i] *= inverse[r];
    if (several) copy_tokens(job->out, job->stride, a.out, n, tokens, n);
}

TP_INLINE void attention_body(const tp_attention *job) {
    assert(job->n_pos > job->skip && job->tokens > 0 &&
           job->ld >= (job->n_pos + job->tokens - 1 + 15) / 16 * 16 + (job->skip ? 16 : 0));
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
