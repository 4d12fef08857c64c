/* What kernels of every instruction set share, in plain C: the order of float sums, half floats,
 * exp.
 *
 * A float dot product puts element i in lane i mod 16, lane += a * b in order of i, each
 * operation rounded; then the tree: lane i += lane i + 8, then + 4, + 2, + 1. Lanes start at +0,
 * so adding a padding of zeros changes nothing. */
#ifndef TRITPACK_COMMON_H
#define TRITPACK_COMMON_H

#include <assert.h>
#include <float.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

#if FLT_EVAL_METHOD != 0
#error "tritpack needs float arithmetic that rounds every operation to its own type (no x87)"
#endif
#if defined(__FAST_MATH__) || __FINITE_MATH_ONLY__ || defined(__ASSOCIATIVE_MATH__) || \
    defined(__RECIPROCAL_MATH__)
#error \
    "tritpack must not be built with -ffast-math or a part of it: results are promised bit by bit"
#endif
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tritpack reads little-endian weights where they lie: big-endian machines are not supported"
#endif

#define TP_INLINE static inline __attribute__((always_inline, unused))
/* For a big function with one caller: it is optimised by itself, then put there. gcc must not
 * merge two of them, which would then be called. */
#if defined(__clang__)
#define TP_ONCE static
#else
#define TP_ONCE static __attribute__((no_icf))
#endif
#define TP_JOIN_(a, b) a##b
#define TP_JOIN(a, b) TP_JOIN_(a, b) /* of what macros stand for */

#define TP_INF_BITS 0x7f800000u
/* The NaN that we write: which bits arithmetic gives depends on the machine. */
#define TP_NAN_BITS 0x7fc00000u

static inline float tp_tree16(const float v[16]) {
    float t[8];
    for (int i = 0; i < 8; i++) t[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; i++) t[i] = t[i] + t[i + 4];
    for (int i = 0; i < 2; i++) t[i] = t[i] + t[i + 2];
    return t[0] + t[1];
}

static inline float tp_bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint32_t tp_float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static inline uint16_t tp_load_u16(const void *p) {
    uint16_t u;
    memcpy(&u, p, 2);
    return u;
}
static inline float tp_load_f32(const void *p) {
    float f;
    memcpy(&f, p, 4);
    return f;
}

static inline float tp_bf16_float(uint16_t h) { return tp_bits_float((uint32_t)h << 16); }

static inline float tp_f16_float(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, mag = h & 0x7fffu;
    if (mag >= 0x7c00u)
        return tp_bits_float(sign | 0x7f800000u | (mag & 0x3ffu) << 13); /* inf, nan */
    if (mag >= 0x0400u) return tp_bits_float(sign | ((mag << 13) + 0x38000000u));
    const float f = (float)mag * 5.9604644775390625e-8f; /* subnormal: mag * 2^-24, exact */
    return tp_bits_float(sign | tp_float_bits(f));
}

/* Round to nearest even, as F16C and NEON do. */
static inline uint16_t tp_float_f16(float f) {
    const uint32_t u = tp_float_bits(f), sign = u >> 16 & 0x8000u, mag = u & 0x7fffffffu;
    if (mag > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (mag >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to infinity */
    if (mag >= 0x38800000u)
        return (uint16_t)(sign | ((mag - 0x38000000u + 0xfffu + (mag >> 13 & 1u)) >> 13));
    const float g = tp_bits_float(mag) + 0.5f; /* the addition rounds at 2^-24 */
    return (uint16_t)(sign | (tp_float_bits(g) - 0x3f000000u));
}

/* round_half_even(v) for |v| < 2^22, any int for others: the addition of 1.5 * 2^23 rounds, the
 * low bits are the integer. */
static inline int32_t tp_round_even(float v) {
    return (int32_t)(tp_float_bits(v + 12582912.0f) - 0x4b400000u);
}

/* exp: x = n ln 2 + r, a polynomial in r (relative error about 1e-7), times 2^n in two exact
 * steps. Below ln(FLT_MIN) the result is 0, above ln(FLT_MAX) infinity.
 * kernels/simd_f32/lanes16.h has the same operations for vectors. */
#define TP_EXP_LO (-87.336540f)
#define TP_EXP_HI 88.722830f
#define TP_EXP_LOG2E 1.44269504088896341f
#define TP_EXP_MAGIC 12582912.0f
#define TP_EXP_LN2_HI 0.693359375f
#define TP_EXP_LN2_LO (-2.12194440e-4f)
#define TP_EXP_C0 1.9875691500e-4f
#define TP_EXP_C1 1.3981999507e-3f
#define TP_EXP_C2 8.3334519073e-3f
#define TP_EXP_C3 4.1665795894e-2f
#define TP_EXP_C4 1.6666665459e-1f
#define TP_EXP_C5 5.0000001201e-1f

#define TP_GELU_SLOPE 1.5957691216057308f /* 2 sqrt(2 / pi) */
#define TP_GELU_CUBE 0.044715f

static inline float tp_exp(float x) {
    const float c = x < TP_EXP_LO ? TP_EXP_LO : x > TP_EXP_HI ? TP_EXP_HI : x;
    const float m = c * TP_EXP_LOG2E + TP_EXP_MAGIC;
    const int32_t n = (int32_t)(tp_float_bits(m) - 0x4b400000u);
    const float f = m - TP_EXP_MAGIC;
    const float r = (c - f * TP_EXP_LN2_HI) - f * TP_EXP_LN2_LO;
    float p = TP_EXP_C0;
    p = p * r + TP_EXP_C1;
    p = p * r + TP_EXP_C2;
    p = p * r + TP_EXP_C3;
    p = p * r + TP_EXP_C4;
    p = p * r + TP_EXP_C5;
    p = (p * (r * r) + r) + 1.0f;
    const uint32_t h = (uint32_t)(n >> 1), l = (uint32_t)n - h;
    const float y = (p * tp_bits_float((h + 127u) << 23)) * tp_bits_float((l + 127u) << 23);
    return x < TP_EXP_LO ? 0.0f : x > TP_EXP_HI ? tp_bits_float(0x7f800000u) : y;
}

#endif
