/* Attention over a cache of 16-bit integers (cache16.h). A row is one head of one token. Rows
 * are worked on ROWS at a time, so that a word of keys or values serves several while it is in a
 * register. What it computes is said at attention16_f32_scalar. */
#ifndef TRITPACK_ATTENTION16_H
#define TRITPACK_ATTENTION16_H

#include "../stream.h"
#include "cache16_simd.h"

#if LANES_NATIVE == 16
enum {
    ROWS = 4,
    WIDE = 4,
    TOGETHER = 4
}; /* rows, groups of columns, blocks of keys in registers */
#elif LANES_NATIVE == 8
enum { ROWS = 4, WIDE = 1, TOGETHER = 1 };
#else
enum { ROWS = 2, WIDE = 1, TOGETHER = 1 };
#endif

typedef struct attention {
    const uint8_t *k, *v;
    float *scores, *out; /* (rows, ld), (rows, dim) */
    float *by, *most,
        *sums; /* (rows) factors of rows, (rows) highest scores, (rows, 16) of exponentials */
    int16_t *q, *weights; /* (rows, dim), (rows, 16 * CACHE16_BLOCKS) */
    int64_t ld, bytes;
    int prefetch;
} attention;

TP_INLINE vi pair(const int16_t *p) { /* two integers for every lane */
    int32_t two;
    memcpy(&two, p, 4);
    return (vi){0} + two;
}

/* Scores of `rows` rows for some blocks from block b on. */
TP_INLINE void score(const attention a, int64_t first, const int rows, int64_t b, const int blocks,
                     const int64_t dim) {
    const uint8_t *const k = a.k + b * a.bytes;
    const int16_t *const q = a.q + first * dim;
    dots acc[ROWS][TOGETHER];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < blocks; j++) acc[r][j] = (dots){0};
    for (int64_t i = 0; i < dim / 2; i++) {
        ints keys[TOGETHER];
#pragma GCC unroll 4
        for (int j = 0; j < blocks; j++) keys[j] = ints_load(k + j * a.bytes + 64 * i);
        if (a.prefetch)
#pragma GCC unroll 4
            for (int j = 0; j < blocks; j++) stream_ahead(k + (i * blocks + j) * 64);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const vi x = pair(q + r * dim + 2 * i);
#pragma GCC unroll 4
            for (int j = 0; j < blocks; j++) acc[r][j] = dots_add(acc[r][j], keys[j], x);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < blocks; j++) {
        const lanes steps = lanes_load((const float *)(const void *)(k + j * a.bytes + 32 * dim));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            lanes_store(
                a.scores + (first + r) * a.ld + 16 * (b + j),
                lanes_mul(lanes_mul(dots_float(acc[r][j]), steps), lanes_splat(a.by[first + r])));
    }
}

TP_INLINE void score_rows(const attention a, int64_t first, const int rows, int64_t blocks,
                          const int64_t dim) {
    int64_t b = 0;
    for (; b + TOGETHER <= blocks; b += TOGETHER) score(a, first, rows, b, TOGETHER, dim);
    for (; b < blocks; b++) score(a, first, rows, b, 1, dim);
}

/* The highest score of positions begin .. end - 1; those around them become such that their
 * exponentials are +0. */
TP_INLINE float highest(float *scores, int64_t begin, int64_t end, int64_t padded) {
    const float none = -tp_bits_float(TP_INF_BITS);
    for (int64_t p = 0; p < begin; p++) scores[p] = none;
    for (int64_t p = end; p < padded; p++) scores[p] = none;
    lanes most = lanes_load(scores);
    for (int64_t p = 16; p < padded; p += 16) most = lanes_max(most, lanes_load(scores + p));
    return lanes_highest(most);
}

/* The exponentials of some blocks, added to their rows' sums, and their weights as integers,
 * whose steps go to `by`. */
TP_INLINE void weigh(const attention a, int64_t first, const int rows, int64_t b, const int blocks,
                     const int64_t dim) {
    lanes w[ROWS][CACHE16_BLOCKS];
    float most[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const float *const scores = a.scores + (first + r) * a.ld + 16 * b;
        lanes sum = lanes_load(a.sums + 16 * (first + r)), high = lanes_splat(0.0f);
#pragma GCC unroll 2
        for (int j = 0; j < blocks; j++) {
            const lanes e = lanes_exp_negative(
                lanes_sub(lanes_load(scores + 16 * j), lanes_splat(a.most[first + r])));
            sum = lanes_add(sum, e);
            w[r][j] = lanes_mul(
                e, lanes_load((const float *)(const void *)(a.v + (b + j) * a.bytes + 32 * dim)));
            high = lanes_max(w[r][j], high);
        }
        lanes_store(a.sums + 16 * (first + r), sum);
        most[r] = lanes_highest(high);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const lanes fit =
            lanes_splat(most[r] < CACHE16_SMALLEST ? 0 : (float)CACHE16_WEIGHT / most[r]);
#pragma GCC unroll 2
        for (int j = 0; j < blocks; j++)
            lanes_store_i16(a.weights + ((first + r) * CACHE16_BLOCKS + j) * 16,
                            lanes_mul(w[r][j], fit));
        a.by[first + r] = most[r] * (1.0f / (float)CACHE16_WEIGHT);
    }
}

TP_INLINE void weigh_rows(const attention a, int64_t first, const int rows, int64_t b,
                          int64_t blocks, const int64_t dim) {
    if (blocks == CACHE16_BLOCKS) weigh(a, first, rows, b, CACHE16_BLOCKS, dim);
    else weigh(a, first, rows, b, 1, dim);
}

/* out += weights * values of some blocks, for `groups` groups of 16 columns from column i on. */
TP_INLINE void mix(const attention a, int64_t first, const int rows, int64_t b, int64_t blocks,
                   int64_t i, const int groups, const int64_t dim) {
    const uint8_t *v = a.v + b * a.bytes + 4 * i;
    const int16_t *w = a.weights + first * 16 * CACHE16_BLOCKS;
    uintptr_t ahead =
        (uintptr_t)(a.v + b * a.bytes + 2 * i * 16 * blocks); /* in the cache's order */
    dots acc[ROWS][WIDE];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++) acc[r][j] = (dots){0};
    for (int64_t block = 0; block < blocks; block++, v += a.bytes - 32 * dim)
        for (int p = 0; p < 8; p++, v += 4 * dim, w += 2) {
            ints values[WIDE];
#pragma GCC unroll 4
            for (int j = 0; j < groups; j++) values[j] = ints_load(v + 64 * j);
            if (a.prefetch)
#pragma GCC unroll 4
                for (int j = 0; j < groups; j++) stream_from(ahead + 64 * (uintptr_t)j);
            ahead += 64 * (uintptr_t)groups;
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const vi x = pair(w + r * 16 * CACHE16_BLOCKS);
#pragma GCC unroll 4
                for (int j = 0; j < groups; j++) acc[r][j] = dots_add(acc[r][j], values[j], x);
            }
        }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < groups; j++) {
            float *const to = a.out + (first + r) * dim + i + 16 * j;
            lanes_store(to, lanes_add(lanes_load(to), lanes_mul(dots_float(acc[r][j]),
                                                                lanes_splat(a.by[first + r]))));
        }
}

TP_INLINE void mix_rows(const attention a, int64_t first, const int rows, int64_t b, int64_t blocks,
                        const int64_t dim) {
    int64_t i = 0;
    for (; i + 16 * WIDE <= dim; i += 16 * WIDE) mix(a, first, rows, b, blocks, i, WIDE, dim);
    for (; i < dim; i += 16) mix(a, first, rows, b, blocks, i, 1, dim);
}

TP_INLINE void attend_all(const tp_attention *job, const int64_t head_dim) {
    const int64_t dim = cache16_dim(head_dim), rows = job->tokens * job->heads,
                  last = job->n_pos + job->tokens - 1, blocks = (last + 15) / 16;
    float *const out = job->work + rows * job->ld, *const sums = out + rows * dim,
                 *const by = sums + 16 * rows, *const most = by + rows;
    int16_t *const q = (int16_t *)(void *)(most + rows);
    attention a = {job->k,         job->v,  job->work,          out,          by, most, sums, q,
                   q + rows * dim, job->ld, cache16_bytes(dim), job->prefetch};
    for (int64_t r = 0; r < rows; r++) {
        const int64_t at = r / job->heads * job->stride + r % job->heads * head_dim;
        const float step = step_of_key(job->q + at, head_dim);
        to_integers(job->q + at, head_dim, dim, step, q + r * dim);
        by[r] = step * job->scale;
    }
    for (int64_t b = 0, r = 0; b < blocks; b += TOGETHER, r = 0) {
        const int64_t more = b + TOGETHER < blocks ? TOGETHER : blocks - b;
        attention block = a;
        block.k += b * a.bytes;
        block.scores += 16 * b;
        for (; r + ROWS <= rows; r += ROWS, block.prefetch = 0)
            score_rows(block, r, ROWS, more, dim);
        for (; r < rows; r++, block.prefetch = 0) score_rows(block, r, 1, more, dim);
    }
    for (int64_t r = 0; r < rows; r++)
        most[r] = highest(a.scores + r * a.ld, job->skip, job->n_pos + r / job->heads, 16 * blocks);
    memset(out, 0, (size_t)(rows * (dim + 16)) * sizeof(float)); /* and the sums after it */
    for (int64_t b = 0, r = 0; b < blocks; b += CACHE16_BLOCKS, r = 0) {
        const int64_t more = b + CACHE16_BLOCKS < blocks ? CACHE16_BLOCKS : blocks - b;
        a.prefetch = job->prefetch;
        for (; r + ROWS <= rows; r += ROWS) weigh_rows(a, r, ROWS, b, more, dim);
        for (; r < rows; r++) weigh_rows(a, r, 1, b, more, dim);
        for (r = 0; r + ROWS <= rows; r += ROWS, a.prefetch = 0) mix_rows(a, r, ROWS, b, more, dim);
        for (; r < rows; r++, a.prefetch = 0) mix_rows(a, r, 1, b, more, dim);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *const to = job->out + r / job->heads * job->stride + r % job->heads * head_dim;
        const float inverse = 1.0f / lanes_tree(lanes_load(sums + 16 * r));
        for (int64_t i = 0; i < head_dim; i++) to[i] = out[r * dim + i] * inverse;
    }
}

TP_INLINE void attention_body(const tp_attention *job) {
    assert(job->n_pos > job->skip && job->tokens > 0 &&
           job->ld >= (job->n_pos + job->tokens - 1 + 15) / 16 * 16);
    const uint64_t bytes =
        (uint64_t)((job->n_pos + 15) / 16 * cache16_bytes(cache16_dim(job->head_dim)));
    if (job->prefetch) {
        stream_start((tp_prefetch){(uintptr_t)job->k, bytes});
        stream_start((tp_prefetch){(uintptr_t)job->v, bytes});
    }
    if (job->head_dim == 128)
        attend_all(job, 128); /* nearly every model: offsets that the compiler knows */
    else attend_all(job, job->head_dim);
}

#endif
