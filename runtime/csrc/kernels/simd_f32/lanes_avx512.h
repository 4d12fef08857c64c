/* The lanes of lanes16.h in one word of AVX-512. */
#ifndef TRITPACK_LANES_AVX512_H
#define TRITPACK_LANES_AVX512_H

#include <immintrin.h>

#include "../common.h"

#define LANES_NATIVE 16
#define TREES 16
typedef __m512 vf;
typedef uint32_t vu __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef __mmask16 vmask;
typedef struct lanes {
    vf v[1];
} lanes;
typedef struct dots {
    vi v[1];
} dots; /* sums of products of 16 bits */

TP_INLINE vf vf_splat(float x) { return _mm512_set1_ps(x); }
/* A float16 in every element, as a float. */
TP_INLINE vf vf_splat_f16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_set1_epi16((short)tp_load_u16(p)));
}
TP_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
TP_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
TP_INLINE vf vf_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
TP_INLINE vf vf_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
TP_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
TP_INLINE float vf_highest(vf a) { return _mm512_reduce_max_ps(a); }
TP_INLINE vmask vf_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
TP_INLINE vf vf_pick(vmask mask, vf yes, vf no) { return _mm512_mask_blend_ps(mask, no, yes); }
TP_INLINE vi vi_max(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }
TP_INLINE vi vi_load_u8(const uint8_t *p) {
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
TP_INLINE void vi_store_i8(int8_t *p, const vi v[1]) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtsepi32_epi8((__m512i)v[0]));
}

TP_INLINE void vi_store_i16(int16_t *p, const vi v[1]) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtsepi32_epi16((__m512i)v[0]));
}
TP_INLINE vf vi_float(vi a) { return _mm512_cvtepi32_ps((__m512i)a); }
/* The intrinsic: dot_s16_s16 of avx512vnni.h keeps big tiles in registers, but takes a third
 * longer on sixteen sums. */
TP_INLINE vi vi_dot(vi acc, vi a, vi b) {
    return (vi)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
}
TP_INLINE vi vi_dots(vi acc) { return acc; }

TP_INLINE float lanes_tree(lanes a) {
    const __m256 t8 = _mm512_castps512_ps256(a.v[0]) + _mm512_extractf32x8_ps(a.v[0], 1);
    const __m128 t4 = _mm256_castps256_ps128(t8) + _mm256_extractf128_ps(t8, 1);
    const __m128 t2 = t4 + _mm_movehl_ps(t4, t4);
    return t2[0] + t2[1];
}

TP_INLINE void lanes_trees(const lanes a[TREES], float *out) {
    __m512 quarters[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* of a[i], a[4 + i], ..: their four lanes, one after the other */
        const __m512 p = a[i].v[0], q = a[4 + i].v[0], r = a[8 + i].v[0], s = a[12 + i].v[0];
        const __m512 x = _mm512_shuffle_f32x4(p, q, 0x44) + _mm512_shuffle_f32x4(p, q, 0xee);
        const __m512 y = _mm512_shuffle_f32x4(r, s, 0x44) + _mm512_shuffle_f32x4(r, s, 0xee);
        quarters[i] = _mm512_shuffle_f32x4(x, y, 0x88) + _mm512_shuffle_f32x4(x, y, 0xdd);
    }
    const __m512 x = _mm512_shuffle_ps(quarters[0], quarters[1], 0x44) +
                     _mm512_shuffle_ps(quarters[0], quarters[1], 0xee);
    const __m512 y = _mm512_shuffle_ps(quarters[2], quarters[3], 0x44) +
                     _mm512_shuffle_ps(quarters[2], quarters[3], 0xee);
    _mm512_storeu_ps(out, _mm512_shuffle_ps(x, y, 0x88) + _mm512_shuffle_ps(x, y, 0xdd));
}

/* A table of four floats, and those that bits shift, shift + 1 of each code name. A permutation
 * reads as many bits as it has places: only the low two count, since the table repeats itself. */
TP_INLINE vf vf_table(const float entries[4]) {
    return _mm512_broadcast_f32x4(_mm_loadu_ps(entries));
}
TP_INLINE vf vf_of_table(vf table, vi codes, const int shift) {
    return _mm512_permutexvar_ps((__m512i)(codes >> shift), table);
}

/* Lanes l and l ^ width change places, for a power of two below LANES_NATIVE. */
TP_INLINE vf vf_swap(vf a, const int width) {
    return width == 1   ? _mm512_permute_ps(a, 0xb1)
           : width == 2 ? _mm512_permute_ps(a, 0x4e)
           : width == 4 ? _mm512_shuffle_f32x4(a, a, 0xb1)
                        : _mm512_shuffle_f32x4(a, a, 0x4e);
}

#endif
