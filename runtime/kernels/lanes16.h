/* Sixteen float lanes in the words of one instruction set, for the kernels whose algorithm is written once
 * (attention.h, head_float.h, ...). Included by *_neon.c, *_avx2.c and *_avx512vnni.c; the scalar files are written out
 * instead, since they are the specification. Arithmetic is plain + - * on GNU vectors: rounded each, never fused.
 *
 * lanes/ has what instruction sets differ in: vf, a word of LANES_NATIVE floats, vu and vi of integers, vmask of comparisons; lanes, as many
 * vf as make sixteen; the tree of common.h, for one sum and for TREES of them at once (out[i] = tree(a[i])); tables. */
#ifndef TRITPACK_LANES16_H
#define TRITPACK_LANES16_H

#include "common.h"

#define LANES_INLINE static inline __attribute__((always_inline, unused))

#if defined(__AVX512F__)
#include "lanes/lanes_avx512.h"
#elif defined(__AVX2__)
#include "lanes/lanes_avx2.h"
#else
#include "lanes/lanes_neon.h"
#endif

#define LANES_PARTS (16 / LANES_NATIVE)

/* Part by part, i being the one at hand. Written out: gcc 12 keeps some of what a loop fills in memory. */
#define LANES_PART(part, value) ({ enum { i = part }; (value); })
#if LANES_PARTS == 1
#define LANES_EACH(value) ((lanes){{LANES_PART(0, value)}})
#elif LANES_PARTS == 2
#define LANES_EACH(value) ((lanes){{LANES_PART(0, value), LANES_PART(1, value)}})
#else
#define LANES_EACH(value) ((lanes){{LANES_PART(0, value), LANES_PART(1, value), LANES_PART(2, value), LANES_PART(3, value)}})
#endif

LANES_INLINE vf vf_abs(vf a) { return (vf)((vu)a & 0x7fffffffu); }

LANES_INLINE lanes lanes_splat(float x) { return LANES_EACH(vf_splat(x)); }
LANES_INLINE lanes lanes_load(const float *p) { return LANES_EACH(vf_load(p + i * LANES_NATIVE)); }
LANES_INLINE lanes lanes_load_f16(const uint16_t *p) { return LANES_EACH(vf_load_f16(p + i * LANES_NATIVE)); }
LANES_INLINE lanes lanes_load_bf16(const uint16_t *p) { return LANES_EACH(vf_load_bf16(p + i * LANES_NATIVE)); }
LANES_INLINE void lanes_store(float *p, lanes a) {
#pragma GCC unroll 4
    for (int i = 0; i < LANES_PARTS; i++) vf_store(p + i * LANES_NATIVE, a.v[i]);
}
LANES_INLINE lanes lanes_add(lanes a, lanes b) { return LANES_EACH(a.v[i] + b.v[i]); }
LANES_INLINE lanes lanes_sub(lanes a, lanes b) { return LANES_EACH(a.v[i] - b.v[i]); }
LANES_INLINE lanes lanes_mul(lanes a, lanes b) { return LANES_EACH(a.v[i] * b.v[i]); }
LANES_INLINE lanes lanes_div(lanes a, lanes b) { return LANES_EACH(a.v[i] / b.v[i]); }
LANES_INLINE lanes lanes_max(lanes a, lanes b) { return LANES_EACH(vf_max(a.v[i], b.v[i])); }

LANES_INLINE float lanes_highest(lanes a) {
    float v[16], m;
    lanes_store(v, a);
    m = v[0];
    for (int i = 1; i < 16; i++) m = v[i] > m ? v[i] : m;
    return m;
}

/* The first n < 16 elements, zeros behind them; reads nothing beyond. */
LANES_INLINE lanes lanes_load_n(const float *p, int64_t n) {
    float t[16] = {0};
    memcpy(t, p, (size_t)n * 4);
    return lanes_load(t);
}
LANES_INLINE lanes lanes_load_f16_n(const uint16_t *p, int64_t n) {
    uint16_t t[16] = {0};
    memcpy(t, p, (size_t)n * 2);
    return lanes_load_f16(t);
}
LANES_INLINE lanes lanes_load_bf16_n(const uint16_t *p, int64_t n) {
    uint16_t t[16] = {0};
    memcpy(t, p, (size_t)n * 2);
    return lanes_load_bf16(t);
}
LANES_INLINE void lanes_store_n(float *p, lanes a, int64_t n) {
    float t[16];
    lanes_store(t, a);
    memcpy(p, t, (size_t)n * 4);
}

/* tp_exp of common.h, operation by operation. */
LANES_INLINE vf vf_exp(vf x) {
    const vf lo = vf_splat(TP_EXP_LO), hi = vf_splat(TP_EXP_HI);
    const vmask below = vf_less(x, lo), above = vf_less(hi, x);
    const vf c = vf_pick(below, lo, vf_pick(above, hi, x));
    const vf m = c * vf_splat(TP_EXP_LOG2E) + vf_splat(TP_EXP_MAGIC);
    const vi n = (vi)((vu)m - 0x4b400000u);
    const vf f = m - vf_splat(TP_EXP_MAGIC);
    const vf r = (c - f * vf_splat(TP_EXP_LN2_HI)) - f * vf_splat(TP_EXP_LN2_LO);
    vf p = vf_splat(TP_EXP_C0);
    p = p * r + vf_splat(TP_EXP_C1);
    p = p * r + vf_splat(TP_EXP_C2);
    p = p * r + vf_splat(TP_EXP_C3);
    p = p * r + vf_splat(TP_EXP_C4);
    p = p * r + vf_splat(TP_EXP_C5);
    p = (p * (r * r) + r) + vf_splat(1.0f);
    const vu h = (vu)(n >> 1), l = (vu)n - h;
    const vf y = (p * (vf)((h + 127u) << 23)) * (vf)((l + 127u) << 23);
    return vf_pick(below, vf_splat(0.0f), vf_pick(above, vf_splat(tp_bits_float(0x7f800000u)), y));
}

LANES_INLINE lanes lanes_exp(lanes a) { return LANES_EACH(vf_exp(a.v[i])); }

#endif
