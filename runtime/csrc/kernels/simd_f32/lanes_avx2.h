/* The lanes of lanes16.h in two words of AVX2. */
#ifndef TRITPACK_LANES_AVX2_H
#define TRITPACK_LANES_AVX2_H

#include <immintrin.h>

#include "../common.h"

#define LANES_NATIVE 8
#define TREES 4
typedef __m256 vf;
typedef uint32_t vu __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef __m256 vmask;
typedef struct lanes {
    vf v[2];
} lanes;
typedef struct dots {
    vi v[2];
} dots;

TP_INLINE vf vf_splat(float x) { return _mm256_set1_ps(x); }
/* A float16 in every element, as a float. */
TP_INLINE vf vf_splat_f16(const uint8_t *p) {
    return _mm256_cvtph_ps(_mm_set1_epi16((short)tp_load_u16(p)));
}
TP_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
TP_INLINE void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
TP_INLINE vf vf_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
TP_INLINE void vf_store_f16(uint16_t *p, vf a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
TP_INLINE vf vf_load_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
TP_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
TP_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); } /* b if one is NaN, as vf_max */
TP_INLINE float vf_highest(vf a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
TP_INLINE vmask vf_less(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
TP_INLINE vf vf_pick(vmask mask, vf yes, vf no) { return _mm256_blendv_ps(no, yes, mask); }
TP_INLINE vi vi_max(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }
TP_INLINE vi vi_load_u8(const uint8_t *p) {
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
TP_INLINE void vi_store_i8(int8_t *p, const vi v[2]) {
    const __m256i w =
        _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)v[0], (__m256i)v[1]), 0xd8);
    _mm_storeu_si128((__m128i *)(void *)p,
                     _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}

TP_INLINE void vi_store_i16(int16_t *p, const vi v[2]) {
    _mm256_storeu_si256(
        (__m256i *)(void *)p,
        _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)v[0], (__m256i)v[1]), 0xd8));
}
TP_INLINE vf vi_float(vi a) { return _mm256_cvtepi32_ps((__m256i)a); }
TP_INLINE vi vi_dot(vi acc, vi a, vi b) {
    return (vi)_mm256_add_epi32((__m256i)acc, _mm256_madd_epi16((__m256i)a, (__m256i)b));
}
TP_INLINE vi vi_dots(vi acc) { return acc; }

TP_INLINE float lanes_tree(lanes a) {
    const __m256 t8 = a.v[0] + a.v[1];
    const __m128 t4 = _mm256_castps256_ps128(t8) + _mm256_extractf128_ps(t8, 1);
    const __m128 t2 = t4 + _mm_movehl_ps(t4, t4);
    return t2[0] + t2[1];
}

TP_INLINE void lanes_trees(const lanes a[TREES], float *out) {
    const __m256 a8 = a[0].v[0] + a[0].v[1], b8 = a[1].v[0] + a[1].v[1], c8 = a[2].v[0] + a[2].v[1],
                 d8 = a[3].v[0] + a[3].v[1];
    const __m256 ab =
        _mm256_permute2f128_ps(a8, b8, 0x20) + _mm256_permute2f128_ps(a8, b8, 0x31); /* a4 | b4 */
    const __m256 cd =
        _mm256_permute2f128_ps(c8, d8, 0x20) + _mm256_permute2f128_ps(c8, d8, 0x31); /* c4 | d4 */
    const __m256 t2 =
        _mm256_shuffle_ps(ab, cd, 0x44) + _mm256_shuffle_ps(ab, cd, 0xee); /* a2 c2 | b2 d2 */
    const __m256 t1 =
        _mm256_shuffle_ps(t2, t2, 0x88) + _mm256_shuffle_ps(t2, t2, 0xdd); /* a c a c | b d b d */
    _mm_storeu_ps(out, _mm_unpacklo_ps(_mm256_castps256_ps128(t1), _mm256_extractf128_ps(t1, 1)));
}

/* As in AVX-512; of eight places three bits are read, and the table is there twice. */
TP_INLINE vf vf_table(const float entries[4]) {
    return _mm256_broadcast_ps((const __m128 *)(const void *)entries);
}
TP_INLINE vf vf_of_table(vf table, vi codes, const int shift) {
    return _mm256_permutevar8x32_ps(table, (__m256i)(codes >> shift));
}

/* As in AVX-512. */
TP_INLINE vf vf_swap(vf a, const int width) {
    return width == 1   ? _mm256_permute_ps(a, 0xb1)
           : width == 2 ? _mm256_permute_ps(a, 0x4e)
                        : _mm256_permute2f128_ps(a, a, 1);
}

#endif
