/* The gated delta rule on sixteen columns of a state, a lane each. The state of these columns is
 * one piece of memory, which stays in L1 while all tokens of a run go over it. */
#ifndef TRITPACK_DELTA_RULE_H
#define TRITPACK_DELTA_RULE_H

#include "../simd_f32/lanes16.h"

TP_INLINE lanes sum_of_parts(const lanes part[4]) {
    return lanes_add(lanes_add(part[0], part[2]), lanes_add(part[1], part[3]));
}

/* Key i: what of it is read after the decay. */
TP_INLINE lanes read_key(lanes sum, float *s, lanes decay, float k) {
    const lanes decayed = lanes_mul(lanes_load(s), decay);
    lanes_store(s, decayed);
    return lanes_add(sum, lanes_mul(lanes_splat(k), decayed));
}

/* Key i: what of it goes out after the update. */
TP_INLINE lanes write_key(lanes sum, float *s, lanes update, float k, float q) {
    const lanes written = lanes_add(lanes_load(s), lanes_mul(lanes_splat(k), update));
    lanes_store(s, written);
    return lanes_add(sum, lanes_mul(lanes_splat(q), written));
}

TP_INLINE void delta_rule_body(const tp_delta_rule *a) {
    const lanes zero = lanes_splat(0.0f);
    for (int64_t t = 0; t < a->tokens; t++) {
        const float *const q = a->q + t * a->stride, *const k = a->k + t * a->stride,
                           *const values = a->v + t * a->stride;
        const lanes decay = lanes_splat(a->decay[t * a->heads]);
        const lanes v = a->columns < 16 ? lanes_load_n(values, a->columns) : lanes_load(values);
        float *const s = a->state;
        lanes part[4] = {zero, zero, zero, zero};
        int64_t i = 0;
        for (; i + 4 <= a->size; i += 4)
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                part[j] = read_key(part[j], s + 16 * (i + j), decay, k[i + j]);
        for (int j = 0; i + j < a->size; j++)
            part[j] = read_key(part[j], s + 16 * (i + j), decay, k[i + j]);
        const lanes beta = lanes_splat(a->beta[t * a->heads]),
                    update = lanes_mul(beta, lanes_sub(v, sum_of_parts(part)));
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) part[j] = zero;
        for (i = 0; i + 4 <= a->size; i += 4)
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                part[j] = write_key(part[j], s + 16 * (i + j), update, k[i + j], q[i + j]);
        for (int j = 0; i + j < a->size; j++)
            part[j] = write_key(part[j], s + 16 * (i + j), update, k[i + j], q[i + j]);
        float *const out = a->out + t * a->out_stride;
        if (a->columns < 16) lanes_store_n(out, sum_of_parts(part), a->columns);
        else lanes_store(out, sum_of_parts(part));
    }
}

#endif
