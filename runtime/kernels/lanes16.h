/* Sixteen float lanes in the words of one instruction set, for the kernels whose algorithm is written once
 * (attention.h, head_float.h, ...). Included by *_avx2.c and *_avx512vnni.c; the scalar files are written out instead,
 * since they are the specification. Arithmetic is plain + - * on GNU vectors: rounded each, never fused. */
#ifndef TRITPACK_LANES16_H
#define TRITPACK_LANES16_H

#include <immintrin.h>

#include "common.h"

#if defined(__AVX512F__)
#define LANES_NATIVE 16
typedef __m512 vf;
typedef uint32_t vu __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef struct lanes { vf v; } lanes;
#else
#define LANES_NATIVE 8
typedef __m256 vf;
typedef uint32_t vu __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef struct lanes { vf lo, hi; } lanes;
#endif

#define LANES_INLINE static inline __attribute__((always_inline, unused))

#if LANES_NATIVE == 16
LANES_INLINE lanes lanes_splat(float x) { return (lanes){_mm512_set1_ps(x)}; }
LANES_INLINE lanes lanes_load(const float *p) { return (lanes){_mm512_loadu_ps(p)}; }
LANES_INLINE void lanes_store(float *p, lanes a) { _mm512_storeu_ps(p, a.v); }
LANES_INLINE lanes lanes_load_f16(const uint16_t *p) { return (lanes){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p))}; }
LANES_INLINE lanes lanes_load_bf16(const uint16_t *p) {
    return (lanes){_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16))};
}
LANES_INLINE lanes lanes_add(lanes a, lanes b) { return (lanes){a.v + b.v}; }
LANES_INLINE lanes lanes_sub(lanes a, lanes b) { return (lanes){a.v - b.v}; }
LANES_INLINE lanes lanes_mul(lanes a, lanes b) { return (lanes){a.v * b.v}; }
LANES_INLINE lanes lanes_div(lanes a, lanes b) { return (lanes){a.v / b.v}; }
LANES_INLINE lanes lanes_max(lanes a, lanes b) { return (lanes){_mm512_max_ps(a.v, b.v)}; }
LANES_INLINE lanes lanes_abs(lanes a) { return (lanes){_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff)))}; }
LANES_INLINE __m256 lanes_half(lanes a) { return _mm512_castps512_ps256(a.v) + _mm512_extractf32x8_ps(a.v, 1); }
#else
LANES_INLINE lanes lanes_splat(float x) { const vf v = _mm256_set1_ps(x); return (lanes){v, v}; }
LANES_INLINE lanes lanes_load(const float *p) { return (lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
LANES_INLINE void lanes_store(float *p, lanes a) { _mm256_storeu_ps(p, a.lo); _mm256_storeu_ps(p + 8, a.hi); }
LANES_INLINE lanes lanes_load_f16(const uint16_t *p) {
    return (lanes){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
LANES_INLINE vf lanes_bf16_part(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
LANES_INLINE lanes lanes_load_bf16(const uint16_t *p) { return (lanes){lanes_bf16_part(p), lanes_bf16_part(p + 8)}; }
LANES_INLINE lanes lanes_add(lanes a, lanes b) { return (lanes){a.lo + b.lo, a.hi + b.hi}; }
LANES_INLINE lanes lanes_sub(lanes a, lanes b) { return (lanes){a.lo - b.lo, a.hi - b.hi}; }
LANES_INLINE lanes lanes_mul(lanes a, lanes b) { return (lanes){a.lo * b.lo, a.hi * b.hi}; }
LANES_INLINE lanes lanes_div(lanes a, lanes b) { return (lanes){a.lo / b.lo, a.hi / b.hi}; }
LANES_INLINE lanes lanes_max(lanes a, lanes b) { return (lanes){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
LANES_INLINE lanes lanes_abs(lanes a) {
    const vf m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return (lanes){_mm256_and_ps(a.lo, m), _mm256_and_ps(a.hi, m)};
}
LANES_INLINE __m256 lanes_half(lanes a) { return a.lo + a.hi; }
#endif

/* The fixed tree of common.h. */
LANES_INLINE float lanes_tree(lanes a) {
    const __m256 t8 = lanes_half(a);
    const __m128 t4 = _mm256_castps256_ps128(t8) + _mm256_extractf128_ps(t8, 1);
    const __m128 t2 = t4 + _mm_movehl_ps(t4, t4);
    return t2[0] + t2[1];
}

/* Many trees at once, the same additions: out[i] = tree(a[i]). */
#if LANES_NATIVE == 16
enum { TREES = 16 };
LANES_INLINE void lanes_trees(const lanes a[TREES], float *out) {
    __m512 quarters[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {       /* of a[i], a[4 + i], ..: their four lanes, one after the other */
        const __m512 x = _mm512_shuffle_f32x4(a[i].v, a[4 + i].v, 0x44) + _mm512_shuffle_f32x4(a[i].v, a[4 + i].v, 0xee);
        const __m512 y = _mm512_shuffle_f32x4(a[8 + i].v, a[12 + i].v, 0x44) + _mm512_shuffle_f32x4(a[8 + i].v, a[12 + i].v, 0xee);
        quarters[i] = _mm512_shuffle_f32x4(x, y, 0x88) + _mm512_shuffle_f32x4(x, y, 0xdd);
    }
    const __m512 x = _mm512_shuffle_ps(quarters[0], quarters[1], 0x44) + _mm512_shuffle_ps(quarters[0], quarters[1], 0xee);
    const __m512 y = _mm512_shuffle_ps(quarters[2], quarters[3], 0x44) + _mm512_shuffle_ps(quarters[2], quarters[3], 0xee);
    _mm512_storeu_ps(out, _mm512_shuffle_ps(x, y, 0x88) + _mm512_shuffle_ps(x, y, 0xdd));
}
#else
enum { TREES = 4 };
LANES_INLINE void lanes_trees(const lanes a[TREES], float *out) {
    const __m256 a8 = lanes_half(a[0]), b8 = lanes_half(a[1]), c8 = lanes_half(a[2]), d8 = lanes_half(a[3]);
    const __m256 ab = _mm256_permute2f128_ps(a8, b8, 0x20) + _mm256_permute2f128_ps(a8, b8, 0x31);  /* a4 | b4 */
    const __m256 cd = _mm256_permute2f128_ps(c8, d8, 0x20) + _mm256_permute2f128_ps(c8, d8, 0x31);  /* c4 | d4 */
    const __m256 t2 = _mm256_shuffle_ps(ab, cd, 0x44) + _mm256_shuffle_ps(ab, cd, 0xee);            /* a2 c2 | b2 d2 */
    const __m256 t1 = _mm256_shuffle_ps(t2, t2, 0x88) + _mm256_shuffle_ps(t2, t2, 0xdd);            /* a c a c | b d b d */
    _mm_storeu_ps(out, _mm_unpacklo_ps(_mm256_castps256_ps128(t1), _mm256_extractf128_ps(t1, 1)));
}
#endif

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

LANES_INLINE vf vf_splat(float x) { return (vf){0} + x; }
#if LANES_NATIVE == 16
typedef __mmask16 vmask;
LANES_INLINE vmask vf_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
LANES_INLINE vf vf_pick(vmask mask, vf yes, vf no) { return _mm512_mask_blend_ps(mask, no, yes); }
#else
typedef __m256 vmask;
LANES_INLINE vmask vf_less(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
LANES_INLINE vf vf_pick(vmask mask, vf yes, vf no) { return _mm256_blendv_ps(no, yes, mask); }
#endif

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

#if LANES_NATIVE == 16
LANES_INLINE lanes lanes_exp(lanes a) { return (lanes){vf_exp(a.v)}; }
#else
LANES_INLINE lanes lanes_exp(lanes a) { return (lanes){vf_exp(a.lo), vf_exp(a.hi)}; }
#endif

#endif
