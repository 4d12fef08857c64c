/* Activation quantisation, for AVX2 and AVX-512. */
#include "../lanes16.h"

LANES_INLINE __m128i quantize16(lanes x, lanes s) {
    const lanes v = lanes_add(lanes_mul(x, s), lanes_splat(12582912.0f));
#if LANES_NATIVE == 16
    const __m512i n = (__m512i)((vu)v.v - 0x4b400000u);
    return _mm512_cvtsepi32_epi8(n);
#else
    const __m256i lo = (__m256i)((vu)v.lo - 0x4b400000u), hi = (__m256i)((vu)v.hi - 0x4b400000u);
    const __m256i p = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
    return _mm_packs_epi16(_mm256_castsi256_si128(p), _mm256_extracti128_si256(p, 1));
#endif
}

/* Lane by lane the higher of m and the magnitude of x, as bits: quantize_f32_scalar.c. */
#if LANES_NATIVE == 16
typedef struct magnitudes { __m512i v; } magnitudes;
LANES_INLINE magnitudes splat_magnitude(float x) { return (magnitudes){_mm512_set1_epi32((int32_t)tp_float_bits(x))}; }
LANES_INLINE magnitudes higher(magnitudes m, lanes x) { return (magnitudes){_mm512_max_epi32(m.v, _mm512_castps_si512(lanes_abs(x).v))}; }
#else
typedef struct magnitudes { __m256i lo, hi; } magnitudes;
LANES_INLINE magnitudes splat_magnitude(float x) {
    const __m256i v = _mm256_set1_epi32((int32_t)tp_float_bits(x));
    return (magnitudes){v, v};
}
LANES_INLINE magnitudes higher(magnitudes m, lanes x) {
    const lanes a = lanes_abs(x);
    return (magnitudes){_mm256_max_epi32(m.lo, _mm256_castps_si256(a.lo)), _mm256_max_epi32(m.hi, _mm256_castps_si256(a.hi))};
}
#endif

LANES_INLINE uint32_t highest_magnitude(magnitudes m) {
    uint32_t bits[16], most = 0;
    memcpy(bits, &m, sizeof bits);
    for (int i = 0; i < 16; i++) most = bits[i] > most ? bits[i] : most;
    return most;
}

LANES_INLINE void quantize_body(const float *x, int64_t cols, int8_t *q, float *s, int32_t *sum_q) {
    magnitudes seen = splat_magnitude(1e-5f);
    int64_t i = 0;
    for (; i + 16 <= cols; i += 16) seen = higher(seen, lanes_load(x + i));
    if (i < cols) seen = higher(seen, lanes_load_n(x + i, cols - i));
    const uint32_t most = highest_magnitude(seen);
    if (most >= TP_INF_BITS) {
        *s = tp_bits_float(TP_NAN_BITS);
        *sum_q = 0;
        memset(q, 0, (size_t)cols);
        return;
    }
    *s = 127.0f / tp_bits_float(most);
    const lanes by = lanes_splat(*s);
    __m256i sum = _mm256_setzero_si256();
    const __m256i ones = _mm256_set1_epi16(1);
    for (i = 0; i + 16 <= cols; i += 16) {
        const __m128i b = quantize16(lanes_load(x + i), by);
        _mm_storeu_si128((__m128i *)(q + i), b);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(b), ones));
    }
    if (i < cols) {
        const __m128i b = quantize16(lanes_load_n(x + i, cols - i), by);
        memcpy(q + i, &b, (size_t)(cols - i));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(b), ones));
    }
    int32_t eight[8], total = 0;
    memcpy(eight, &sum, 32);
    for (int j = 0; j < 8; j++) total += eight[j];
    *sum_q = total;
}
