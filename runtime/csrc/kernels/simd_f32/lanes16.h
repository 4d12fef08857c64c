/* Sixteen float lanes in the words of one instruction set, for the kernels whose algorithm is
 * written once (attention.h, lm_head_float.inc, ...). Included by *_neon.c, *_simd128.c,
 * *_avx2.c and *_avx512vnni.c; the scalar files are written out instead, since they are the
 * specification. Arithmetic is plain + - * on GNU vectors: rounded each, never fused.
 *
 * lanes_ISA.h has what instruction sets differ in: vf, a word of LANES_NATIVE floats, vu and vi
 * of integers, vmask of comparisons; lanes, as many vf as make sixteen; the tree of common.h,
 * for one sum and for TREES of them at once (out[i] = tree(a[i])); dots, sixteen sums of
 * products of 16-bit integers; tables. */
#ifndef TRITPACK_LANES16_H
#define TRITPACK_LANES16_H

#include "../common.h"

#if defined(__AVX512F__)
#include "lanes_avx512.h"
#elif defined(__AVX2__)
#include "lanes_avx2.h"
#elif defined(__wasm__)
#include "lanes_simd128.h"
#else
#include "lanes_neon.h"
#endif

#define LANES_PARTS (16 / LANES_NATIVE)

/* Part by part, i being the one at hand. Written out: gcc 12 keeps some of what a loop fills in
 * memory. */
#define LANES_PART(part, value) \
    ({ \
        enum { i = part }; \
        (value); \
    })
#if LANES_PARTS == 1
#define PARTS_EACH(type, value) ((type){{LANES_PART(0, value)}})
#elif LANES_PARTS == 2
#define PARTS_EACH(type, value) ((type){{LANES_PART(0, value), LANES_PART(1, value)}})
#else
#define PARTS_EACH(type, value) \
    ((type){ \
        {LANES_PART(0, value), LANES_PART(1, value), LANES_PART(2, value), LANES_PART(3, value)}})
#endif
#define LANES_EACH(value) PARTS_EACH(lanes, value)

TP_INLINE vf vf_abs(vf a) { return (vf)((vu)a & 0x7fffffffu); }
TP_INLINE vi vf_round(vf a) {
    return (vi)((vu)(a + vf_splat(12582912.0f)) - 0x4b400000u);
} /* tp_round_even of common.h */

typedef struct ints {
    vi v[LANES_PARTS];
} ints; /* sixteen integers, or sixteen pairs of 16 bits */

TP_INLINE lanes lanes_splat(float x) { return LANES_EACH(vf_splat(x)); }
TP_INLINE lanes lanes_load(const float *p) { return LANES_EACH(vf_load(p + i * LANES_NATIVE)); }
TP_INLINE lanes lanes_load_f16(const uint16_t *p) {
    return LANES_EACH(vf_load_f16(p + i * LANES_NATIVE));
}
TP_INLINE lanes lanes_load_bf16(const uint16_t *p) {
    return LANES_EACH(vf_load_bf16(p + i * LANES_NATIVE));
}
TP_INLINE void lanes_store(float *p, lanes a) {
#pragma GCC unroll 4
    for (int i = 0; i < LANES_PARTS; i++) vf_store(p + i * LANES_NATIVE, a.v[i]);
}
TP_INLINE lanes lanes_add(lanes a, lanes b) { return LANES_EACH(a.v[i] + b.v[i]); }
TP_INLINE lanes lanes_sub(lanes a, lanes b) { return LANES_EACH(a.v[i] - b.v[i]); }
TP_INLINE lanes lanes_mul(lanes a, lanes b) { return LANES_EACH(a.v[i] * b.v[i]); }
TP_INLINE lanes lanes_div(lanes a, lanes b) { return LANES_EACH(a.v[i] / b.v[i]); }
TP_INLINE lanes lanes_max(lanes a, lanes b) { return LANES_EACH(vf_max(a.v[i], b.v[i])); }

TP_INLINE lanes lanes_abs(lanes a) { return LANES_EACH(vf_abs(a.v[i])); }

/* If one is NaN, any of them: callers must not need it then. */
TP_INLINE float lanes_highest(lanes a) {
    vf m = a.v[0];
    for (int i = 1; i < LANES_PARTS; i++) m = vf_max(m, a.v[i]);
    return vf_highest(m);
}

/* Lane by lane the higher of m and the magnitude of x, as bits, so that no NaN gets lost; the
 * highest of the lanes. */
TP_INLINE vi vi_magnitudes(vi m, lanes x) {
#pragma GCC unroll 4
    for (int i = 0; i < LANES_PARTS; i++) m = vi_max(m, (vi)vf_abs(x.v[i]));
    return m;
}
TP_INLINE uint32_t vi_highest(vi m) {
    int32_t most = 0;
    for (int i = 0; i < LANES_NATIVE; i++) most = m[i] > most ? m[i] : most;
    return (uint32_t)most;
}

TP_INLINE void lanes_store_i16(int16_t *p, lanes a) { /* rounded */
    vi n[LANES_PARTS];
#pragma GCC unroll 4
    for (int i = 0; i < LANES_PARTS; i++) n[i] = vf_round(a.v[i]);
    vi_store_i16(p, n);
}

TP_INLINE vi vi_load(const uint8_t *p) {
    vi a;
    memcpy(&a, p, sizeof a);
    return a;
}
TP_INLINE ints ints_load(const uint8_t *p) {
    return PARTS_EACH(ints, vi_load(p + i * 4 * LANES_NATIVE));
}
/* acc += the two products of each lane. */
TP_INLINE dots dots_add(dots acc, ints a, vi b) {
    return PARTS_EACH(dots, vi_dot(acc.v[i], a.v[i], b));
}
/* Each lane's sum. */
TP_INLINE lanes dots_float(dots a) { return LANES_EACH(vi_float(vi_dots(a.v[i]))); }

/* The first n < 16 elements, zeros after them; reads nothing beyond. */
TP_INLINE lanes lanes_load_n(const float *p, int64_t n) {
    float t[16] = {0};
    memcpy(t, p, (size_t)n * 4);
    return lanes_load(t);
}
TP_INLINE lanes lanes_load_f16_n(const uint16_t *p, int64_t n) {
    uint16_t t[16] = {0};
    memcpy(t, p, (size_t)n * 2);
    return lanes_load_f16(t);
}
TP_INLINE lanes lanes_load_bf16_n(const uint16_t *p, int64_t n) {
    uint16_t t[16] = {0};
    memcpy(t, p, (size_t)n * 2);
    return lanes_load_bf16(t);
}
TP_INLINE void lanes_store_n(float *p, lanes a, int64_t n) {
    float t[16];
    lanes_store(t, a);
    memcpy(p, t, (size_t)n * 4);
}

/* tp_exp of common.h, operation by operation: exp(c) is the result times 2^n. */
TP_INLINE vf vf_exp_parts(vf c, vi *n) {
    const vf m = c * vf_splat(TP_EXP_LOG2E) + vf_splat(TP_EXP_MAGIC);
    *n = (vi)((vu)m - 0x4b400000u);
    const vf f = m - vf_splat(TP_EXP_MAGIC);
    const vf r = (c - f * vf_splat(TP_EXP_LN2_HI)) - f * vf_splat(TP_EXP_LN2_LO);
    vf p = vf_splat(TP_EXP_C0);
    p = p * r + vf_splat(TP_EXP_C1);
    p = p * r + vf_splat(TP_EXP_C2);
    p = p * r + vf_splat(TP_EXP_C3);
    p = p * r + vf_splat(TP_EXP_C4);
    p = p * r + vf_splat(TP_EXP_C5);
    return (p * (r * r) + r) + vf_splat(1.0f);
}

TP_INLINE vf vf_exp(vf x) {
    const vf lo = vf_splat(TP_EXP_LO), hi = vf_splat(TP_EXP_HI);
    const vmask below = vf_less(x, lo), above = vf_less(hi, x);
    vi n;
    const vf p = vf_exp_parts(vf_pick(below, lo, vf_pick(above, hi, x)), &n);
    const vu h = (vu)(n >> 1), l = (vu)n - h;
    const vf y = (p * (vf)((h + 127u) << 23)) * (vf)((l + 127u) << 23);
    return vf_pick(below, vf_splat(0.0f), vf_pick(above, vf_splat(tp_bits_float(0x7f800000u)), y));
}

/* Of x <= 0 or NaN (of others, which a row with NaN may have, anything): n is small enough for
 * 2^n to be a float, and one multiplication rounds as the two do. */
TP_INLINE vf vf_exp_negative(vf x) {
    const vf lo = vf_splat(TP_EXP_LO);
    vi n;
    const vf p = vf_exp_parts(vf_max(lo, x), &n);
    return vf_pick(vf_less(x, lo), vf_splat(0.0f), p * (vf)(((vu)n + 127u) << 23));
}

TP_INLINE lanes lanes_exp_negative(lanes a) { return LANES_EACH(vf_exp_negative(a.v[i])); }
TP_INLINE lanes lanes_exp(lanes a) { return LANES_EACH(vf_exp(a.v[i])); }

#endif
