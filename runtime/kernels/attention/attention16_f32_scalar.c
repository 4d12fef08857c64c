#include "cache16.h"

/* As attention_f32_scalar.c, with whole numbers for factors (cache16.h):
 * score[p] = (float(q . k[p]) * step of k[p]) * (step of q * scale), q rounded by its norm as the keys are;
 * e and sum e as there; w[p] = e[p] * step of v[p]; then for every 32 positions from the first block on, most being their highest w,
 * out += float(sum of round(w[p] * (4095 / most)) * v[p]) * (most * (1 / 4095)); last out *= 1 / sum e. */
static void head(const tp_attention *a, const float *q, int64_t n_pos, float *scores, float *out) {
    const int64_t dim = cache16_dim(a->head_dim), bytes = cache16_bytes(dim), head_dim = a->head_dim;
    const uint8_t *const keys = a->k, *const values = a->v;
    const float step = key_step_of(q, head_dim), inverse = inverse_step(step), by = step * a->scale;
    float sum[16] = {0}, most = 0;
    for (int64_t p = a->skip; p < n_pos; p++) {
        const uint8_t *const block = keys + p / 16 * bytes;
        const int16_t *const k = (const int16_t *)(const void *)block;
        uint32_t dot = 0;
        for (int64_t i = 0; i < head_dim; i++) dot += (uint32_t)(to_int16(q[i], inverse) * k[cache16_key(p % 16, i)]);
        scores[p] = ((float)(int32_t)dot * tp_load_f32(block + 32 * dim + 4 * (p % 16))) * by;
        most = p == a->skip || scores[p] > most ? scores[p] : most;
    }
    for (int64_t p = 0; p < n_pos; p++) {
        scores[p] = p < a->skip ? 0 : tp_exp(scores[p] - most);
        sum[p % 16] += scores[p];
    }
    for (int64_t i = 0; i < head_dim; i++) out[i] = 0;
    for (int64_t begin = 0; begin < n_pos; begin += 16 * CACHE16_BLOCKS) {
        const int64_t end = begin + 16 * CACHE16_BLOCKS < n_pos ? begin + 16 * CACHE16_BLOCKS : n_pos;
        most = 0;
        for (int64_t p = begin; p < end; p++) {
            scores[p] *= tp_load_f32(values + p / 16 * bytes + 32 * dim + 4 * (p % 16));
            most = scores[p] > most ? scores[p] : most;
        }
        const float fit = most < CACHE16_SMALLEST ? 0 : (float)CACHE16_WEIGHT / most, back = most * (1.0f / (float)CACHE16_WEIGHT);
        for (int64_t i = 0; i < head_dim; i++) {
            uint32_t dot = 0;
            for (int64_t p = begin; p < end; p++) {
                const int16_t *const v = (const int16_t *)(const void *)(values + p / 16 * bytes);
                dot += (uint32_t)tp_round_even(scores[p] * fit) * (uint32_t)v[cache16_value(p % 16, i, dim)];
            }
            out[i] += (float)(int32_t)dot * back;
        }
    }
    const float rest = 1.0f / tp_tree16(sum);
    for (int64_t i = 0; i < head_dim; i++) out[i] *= rest;
}

void attention16_f32_scalar(const tp_attention *a) {
    assert(a->n_pos > a->skip && a->ld >= a->n_pos + a->tokens - 1);
    for (int64_t t = 0; t < a->tokens; t++)
        for (int64_t h = 0; h < a->heads; h++) {
            const int64_t at = t * a->stride + h * a->head_dim;
            head(a, a->q + at, a->n_pos + t, a->work + (t * a->heads + h) * a->ld, a->out + at);
        }
}
