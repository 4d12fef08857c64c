/* The scales of the sub-blocks of Q6_K and Q4_K: some are tried, and the one with the least
 * weighted squared error is kept, as in formats/k_quants.py. Sub-blocks stand side by side, one
 * per lane. Every sum has a fixed order: term i goes to sum i mod 8, in order of i; then
 * neighbours are added until one is left, and +0. The includer has chosen its lanes: lanes16.h or
 * one_lane.h. */
#ifndef TRITPACK_ENCODE_TRIALS_H
#define TRITPACK_ENCODE_TRIALS_H

#include "../common.h"

/* Rounds to nearest even what is below 2^22. */
#define TO_WHOLE 12582912.0f
TP_INLINE float whole(float v) { return (v + TO_WHOLE) - TO_WHOLE; }
TP_INLINE vf vf_whole(vf v) { return (v + vf_splat(TO_WHOLE)) - vf_splat(TO_WHOLE); }

/* The tree of eight sums, which come one after the other. */
typedef struct tree {
    vf one, two, four;
} tree;

TP_INLINE void tree_put(tree *t, int place, vf term) {
    if (place % 2 == 0) {
        t->one = term;
        return;
    }
    term = t->one + term;
    if (place % 4 == 1) {
        t->two = term;
        return;
    }
    term = t->two + term;
    if (place == 3) t->four = term;
    else t->four = t->four + term + vf_splat(0.0f);
}

/* ---- Q6_K ---- */

/* Of LANES_NATIVE sub-blocks: least squares weighted by x^2, 19 trials. */
TP_INLINE vf q6_k_try(const float t[16][16], int first) {
    float weights[16][LANES_NATIVE], weighted[16][LANES_NATIVE];
    vf extreme = vf_splat(0.0f), best = vf_splat(0.0f), score = vf_splat(-1.0f);
    for (int e = 0; e < 16; e++) {
        const vf x = vf_load(&t[e][first]), w = x * x;
        extreme = vf_pick(vf_less(vf_abs(extreme), vf_abs(x)), x, extreme);
        vf_store(weights[e], w);
        vf_store(weighted[e], w * x);
    }
    for (int nudge = -9; nudge <= 9; nudge++) {
        const vf inverse = vf_splat((float)-(32 + 0.1 * nudge)) / extreme;
        tree cross = {best, best, best}, norm = cross;
#pragma GCC unroll 8
        for (int e = 0; e < 8; e++) {
            vf crosses[2], norms[2];
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                const int at = e + 8 * half;
                const vf v = vf_load(&t[at][first]) * inverse;
                const vf code = vf_whole(vf_min(vf_max(v, vf_splat(-32.0f)), vf_splat(31.0f)));
                crosses[half] = vf_load(weighted[at]) * code;
                norms[half] = vf_load(weights[at]) * code * code;
            }
            tree_put(&cross, e, crosses[0] + crosses[1]);
            tree_put(&norm, e, norms[0] + norms[1]);
        }
        const vf gain = vf_pick(vf_less(vf_splat(0.0f), norm.four),
                                cross.four * cross.four / norm.four, vf_splat(-1.0f));
        const vmask better = vf_less(score, gain);
        best = vf_pick(better, cross.four / norm.four, best);
        score = vf_pick(better, gain, score);
    }
    return best;
}

TP_INLINE void q6_k_ideal(const float *x /* (256) */, float *out /* (16) */) {
    float t[16][16];
    for (int e = 0; e < 16; e++)
        for (int s = 0; s < 16; s++) t[e][s] = x[16 * s + e];
    for (int s = 0; s < 16; s += LANES_NATIVE)
        vf_store(out + s, q6_k_try((const float(*)[16])t, s));
}

/* ---- Q4_K ---- */

/* The values of LANES_NATIVE sub-blocks, and what does not change from trial to trial. */
typedef struct q4_k_group {
    float x[32][LANES_NATIVE], above[32][LANES_NATIVE]; /* above the lowest, which is <= 0 */
    float weights[32][LANES_NATIVE], weighted[32][LANES_NATIVE], codes[32][LANES_NATIVE];
    vf low, range, total, sum_x;
} q4_k_group;

/* The sum of 32 terms, each an expression of e. */
#define SUM32(term) \
    ({ \
        tree sum_ = {vf_splat(0.0f), vf_splat(0.0f), vf_splat(0.0f)}; \
        _Pragma("GCC unroll 8") for (int j_ = 0; j_ < 8; j_++) { \
            vf part_; \
            { \
                const int e = j_; \
                part_ = (term); \
            } \
            _Pragma("GCC unroll 3") for (int e = j_ + 8; e < 32; e += 8) part_ = part_ + (term); \
            tree_put(&sum_, j_, part_); \
        } \
        sum_.four; \
    })

TP_INLINE void q4_k_prepare(const float *x /* (256) */, int first, q4_k_group *g) {
    for (int e = 0; e < 32; e++)
        for (int s = 0; s < LANES_NATIVE; s++) g->x[e][s] = x[32 * (first + s) + e];
    vf high = vf_load(g->x[0]), low = high;
    for (int e = 1; e < 32; e++) {
        const vf v = vf_load(g->x[e]);
        high = vf_pick(vf_less(v, high), high, v); /* the last of equals: zeros have a sign */
        low = vf_min(v, low);
    }
    g->low = vf_pick(vf_less(low, vf_splat(0.0f)), low, vf_splat(0.0f));
    g->range = high - g->low;
    float mean[LANES_NATIVE];
    vf_store(mean, SUM32(vf_load(g->x[e]) * vf_load(g->x[e])) / vf_splat(32.0f));
    for (int s = 0; s < LANES_NATIVE; s++) mean[s] = __builtin_sqrtf(mean[s]);
    for (int e = 0; e < 32; e++) {
        const vf v = vf_load(g->x[e]), w = vf_load(mean) + vf_abs(v);
        vf_store(g->above[e], v - g->low);
        vf_store(g->weights[e], w);
        vf_store(g->weighted[e], w * v);
    }
    g->total = SUM32(vf_load(g->weights[e]));
    g->sum_x = SUM32(vf_load(g->weighted[e]));
}

/* Of LANES_NATIVE sub-blocks: least squares weighted by magnitude, 21 trials. */
TP_INLINE void q4_k_try(q4_k_group *g, float *scales, float *offsets) {
    const vf zero = vf_splat(0.0f), infinite = vf_splat(tp_bits_float(TP_INF_BITS));
    vf best = infinite, best_scale = g->range / vf_splat(15.0f), best_offset = -g->low;
    for (int nudge = -10; nudge <= 10; nudge++) {
        const vf inverse = vf_splat((float)(15 + 0.1 * nudge)) / g->range;
        for (int e = 0; e < 32; e++)
            vf_store(g->codes[e],
                     vf_whole(vf_min(inverse * vf_load(g->above[e]), vf_splat(15.0f))));
        const vf sum_q = SUM32(vf_load(g->weights[e]) * vf_load(g->codes[e])),
                 sum_qq =
                     SUM32(vf_load(g->weights[e]) * vf_load(g->codes[e]) * vf_load(g->codes[e])),
                 sum_xq = SUM32(vf_load(g->weighted[e]) * vf_load(g->codes[e]));
        const vf determinant = g->total * sum_qq - sum_q * sum_q,
                 both = (g->total * sum_xq - g->sum_x * sum_q) / determinant,
                 shift = -(sum_qq * g->sum_x - sum_q * sum_xq) / determinant;
        /* An offset can only lower the values; without one another scale is the best. */
        const vf scale = vf_pick(vf_less(shift, zero), sum_xq / sum_qq, both),
                 offset = vf_pick(vf_less(zero, shift), shift, zero);
        vf error = SUM32(({
            const vf apart = scale * vf_load(g->codes[e]) - offset - vf_load(g->x[e]);
            vf_load(g->weights[e]) * (apart * apart);
        }));
        error = vf_pick(vf_less(vf_abs(inverse), infinite), error, infinite);
        error = vf_pick(vf_less(shift, infinite), error, infinite);
        error = vf_pick(vf_less(zero, scale), error, infinite);
        error = vf_pick(vf_less(scale, infinite), error, infinite);
        const vmask better = vf_less(error, best);
        best = vf_pick(better, error, best);
        best_scale = vf_pick(better, scale, best_scale);
        best_offset = vf_pick(better, offset, best_offset);
    }
    vf_store(scales, best_scale);
    vf_store(offsets, best_offset);
}

TP_INLINE void q4_k_ideal(const float *x /* (256) */, float *scales /* (8) */,
                          float *offsets /* (8) */) {
    q4_k_group g;
    for (int s = 0; s < 8; s += LANES_NATIVE) {
        q4_k_prepare(x, s, &g);
        q4_k_try(&g, scales + s, offsets + s);
    }
}

#endif
