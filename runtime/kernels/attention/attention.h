/* Attention of one query head, for AVX2 and AVX-512. The including file defines CACHED (element type of the cache),
 * LOAD(p) and LOAD_N(p, n). The order of every sum is that of attention_f32_scalar.c. */
#include "../lanes16.h"

#if LANES_NATIVE == 16
enum { KEYS = 8, WIDE = 8 };     /* keys scored at once; lane groups of the output kept in registers */
#else
enum { KEYS = 4, WIDE = 4 };
#endif

LANES_INLINE void score_keys(const float *q, const CACHED *k /* (n_pos, head_dim) */, int64_t p, int64_t n_pos, int64_t head_dim, float scale,
                             float *scores) {
    lanes acc[KEYS];
    const CACHED *key[KEYS];
#pragma GCC unroll 8
    for (int j = 0; j < KEYS; j++) {
        acc[j] = lanes_splat(0.0f);
        key[j] = k + (p + j < n_pos ? p + j : n_pos - 1) * head_dim;
    }
    int64_t i = 0;
    for (; i + 16 <= head_dim; i += 16) {
        const lanes x = lanes_load(q + i);
#pragma GCC unroll 8
        for (int j = 0; j < KEYS; j++) acc[j] = lanes_add(acc[j], lanes_mul(x, LOAD(key[j] + i)));
    }
    if (i < head_dim) {
        const lanes x = lanes_load_n(q + i, head_dim - i);
#pragma GCC unroll 8
        for (int j = 0; j < KEYS; j++) acc[j] = lanes_add(acc[j], lanes_mul(x, LOAD_N(key[j] + i, head_dim - i)));
    }
#pragma GCC unroll 2
    for (int j = 0; j < KEYS; j += 4)
        _mm_storeu_ps(scores + p + j, lanes_tree4(acc[j], acc[j + 1], acc[j + 2], acc[j + 3]) * _mm_set1_ps(scale));
}

/* out[16 * groups] = (sum over p of e[p] * v[p]) * by for `groups` lane groups from column i. */
LANES_INLINE void mix(const float *e, const CACHED *v, int64_t n_pos, int64_t head_dim, lanes by, const int groups, float *out) {
    lanes acc[WIDE];
#pragma GCC unroll 8
    for (int j = 0; j < groups; j++) acc[j] = lanes_splat(0.0f);
    for (int64_t p = 0; p < n_pos; p++, v += head_dim) {
        const lanes w = lanes_splat(e[p]);
#pragma GCC unroll 8
        for (int j = 0; j < groups; j++) acc[j] = lanes_add(acc[j], lanes_mul(w, LOAD(v + 16 * j)));
    }
#pragma GCC unroll 8
    for (int j = 0; j < groups; j++) lanes_store(out + 16 * j, lanes_mul(acc[j], by));
}

LANES_INLINE void attention_body(const float *q, const CACHED *k, const CACHED *v, int64_t n_pos, int64_t head_dim, float scale, float *scores,
                                 float *out) {
    assert(n_pos > 0);
    const int64_t padded = (n_pos + 15) / 16 * 16;
    const float none = -tp_bits_float(0x7f800000u);
    for (int64_t p = 0; p < n_pos; p += KEYS) score_keys(q, k, p, n_pos, head_dim, scale, scores);
    for (int64_t p = n_pos; p < padded; p++) scores[p] = none;      /* exp gives +0 */
    lanes most = lanes_load(scores), sum = lanes_splat(0.0f);
    for (int64_t p = 16; p < padded; p += 16) most = lanes_max(most, lanes_load(scores + p));
    const lanes shift = lanes_splat(lanes_highest(most));
    for (int64_t p = 0; p < padded; p += 16) {
        const lanes e = lanes_exp(lanes_sub(lanes_load(scores + p), shift));
        lanes_store(scores + p, e);
        sum = lanes_add(sum, e);
    }
    const float inverse = 1.0f / lanes_tree(sum);
    const lanes by = lanes_splat(inverse);
    int64_t i = 0;
    for (; i + 16 * WIDE <= head_dim; i += 16 * WIDE) mix(scores, v + i, n_pos, head_dim, by, WIDE, out + i);
    for (; i + 16 <= head_dim; i += 16) mix(scores, v + i, n_pos, head_dim, by, 1, out + i);
    if (i < head_dim) {
        lanes acc = lanes_splat(0.0f);
        for (int64_t p = 0; p < n_pos; p++)
            acc = lanes_add(acc, lanes_mul(lanes_splat(scores[p]), LOAD_N(v + p * head_dim + i, head_dim - i)));
        lanes_store_n(out + i, lanes_mul(acc, by), head_dim - i);
    }
}
