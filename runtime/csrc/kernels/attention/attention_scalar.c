/* Attention over floats in plain C: the specification. */
#include "cache32.h"

/* score[p] = dot(q, k[p]) * scale; e[p] = exp(score[p] - max); out = (sum over p, in order, of
 * e[p] * v[p]) * (1 / sum e), the sum of e in 16 lanes (position skip + i in lane i mod 16) and
 * the tree of common.h. */
static void attend(const float *q, const float *keys, const float *values, int64_t skip,
                   int64_t n_pos, int64_t head_dim, float scale, float *scores, float *out) {
    float sum[16] = {0}, most = 0;
    for (int64_t p = skip; p < n_pos; p++) {
        float lanes[16] = {0};
        for (int64_t i = 0; i < head_dim; i++)
            lanes[i % 16] += q[i] * keys[cache32_key(p, i, head_dim)];
        scores[p] = tp_tree16(lanes) * scale;
        most = p == skip || scores[p] > most ? scores[p] : most;
    }
    for (int64_t p = skip; p < n_pos; p++) {
        scores[p] = tp_exp(scores[p] - most);
        sum[(p - skip) % 16] += scores[p];
    }
    const float by = 1.0f / tp_tree16(sum);
    for (int64_t i = 0; i < head_dim; i++) out[i] = 0;
    for (int64_t p = skip; p < n_pos; p++) {
        const float *v = values + p * head_dim;
        for (int64_t i = 0; i < head_dim; i++) out[i] += scores[p] * v[i];
    }
    for (int64_t i = 0; i < head_dim; i++) out[i] *= by;
}

void attention_f32_scalar(const tp_attention *a) {
    assert(a->n_pos > a->skip && a->ld >= a->n_pos + a->tokens - 1);
    for (int64_t t = 0; t < a->tokens; t++)
        for (int64_t h = 0; h < a->heads; h++) {
            const int64_t at = t * a->stride + h * a->head_dim;
            attend(a->q + at, a->k, a->v, a->skip, a->n_pos + t, a->head_dim, a->scale,
                   a->work + (t * a->heads + h) * a->ld, a->out + at);
        }
}
