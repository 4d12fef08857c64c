/* Floats to types of embeddings, heads and norms, for instruction sets with lanes. */
#ifndef TRITPACK_ENCODE_LANES_H
#define TRITPACK_ENCODE_LANES_H

#include "../simd_f32/lanes16.h"
#include "encode_blocks.h"

TP_INLINE void widen_f16(const uint16_t *from, int64_t n, float *to) {
    int64_t i = 0;
    for (; i + LANES_NATIVE <= n; i += LANES_NATIVE) vf_store(to + i, vf_load_f16(from + i));
    for (; i < n; i++) to[i] = tp_f16_float(from[i]);
}

typedef struct half_marks {
    vu changed;
    vi before, after; /* highest magnitudes */
} half_marks;

TP_INLINE void encode_halves(const float *x, uint16_t *out, half_marks *m) {
    const vf was = vf_load(x);
    vf_store_f16(out, was);
    const vf is = vf_load_f16(out);
    m->changed |= (vu)was ^ (vu)is;
    m->before = vi_max(m->before, (vi)vf_abs(was));
    m->after = vi_max(m->after, (vi)vf_abs(is));
}

TP_INLINE unsigned encode_f16(const float *x, int64_t n, uint16_t *out) {
    half_marks m = {{0}, {0}, {0}};
    int64_t i = 0;
    for (; i + LANES_NATIVE <= n; i += LANES_NATIVE) encode_halves(x + i, out + i, &m);
    if (i < n) {
        float last[LANES_NATIVE] = {0};
        uint16_t halves[LANES_NATIVE];
        memcpy(last, x + i, (size_t)(n - i) * sizeof *x);
        encode_halves(last, halves, &m);
        memcpy(out + i, halves, (size_t)(n - i) * sizeof *out);
    }
    uint32_t changed = 0;
    for (int j = 0; j < LANES_NATIVE; j++) changed |= m.changed[j];
    return encode_flags(changed, vi_highest(m.before), vi_highest(m.after));
}

#endif
