/* The cache of 16-bit integers, and attention over it, in plain C: the specification. */
#include "cache16.h"

/* Attention as in attention_f32_scalar, with integers for factors (cache16.h):
 *   1. q is rounded as keys are; score[p] = (float(q . k[p]) * step of k[p]) * (step of q * scale)
 *   2. e[p] and the sum of e as in attention_f32_scalar
 *   3. w[p] = e[p] * step of v[p]
 *   4. for every 32 positions from the first block on, with `most` their largest w:
 *      out += float(sum over p of round(w[p] * (4095 / most)) * v[p]) * (most * (1 / 4095))
 *   5. out *= 1 / sum of e */

/* sums[j] += the two products of lane j. */
static void add_products(int32_t *restrict sums, const int16_t *restrict a /* (lanes, 2) */,
                         int16_t x0, int16_t x1, int64_t lanes) {
    for (int64_t j = 0; j < lanes; j++) sums[j] += a[2 * j] * x0 + a[2 * j + 1] * x1;
}

static void attend(const tp_attention *a, const float *q, int64_t n_pos, float *scores,
                   int32_t *sums /* (dim) */, int16_t *whole /* (dim) */, float *out) {
    const int64_t head_dim = a->head_dim, dim = cache16_dim(head_dim), bytes = cache16_bytes(dim);
    const float step = key_step_of(q, head_dim), inverse = inverse_step(step), by = step * a->scale;
    float sum[16] = {0}, most = 0;
    for (int64_t i = 0; i < dim; i++) whole[i] = i < head_dim ? to_int16(q[i], inverse) : 0;
    for (int64_t begin = 0; begin < n_pos; begin += 16) {
        const uint8_t *const block = (const uint8_t *)a->k + begin / 16 * bytes;
        int32_t dots[16] = {0};
        for (int64_t i = 0; i < dim; i += 2)
            add_products(dots, (const int16_t *)(const void *)block + 16 * i, whole[i],
                         whole[i + 1], 16);
        for (int64_t p = begin; p < begin + 16 && p < n_pos; p++) {
            if (p < a->skip) continue;
            scores[p] =
                ((float)dots[p - begin] * tp_load_f32(block + 32 * dim + 4 * (p - begin))) * by;
            most = p == a->skip || scores[p] > most ? scores[p] : most;
        }
    }
    for (int64_t p = 0; p < n_pos; p++) {
        scores[p] = p < a->skip ? 0 : tp_exp(scores[p] - most);
        sum[p % 16] += scores[p];
    }
    const float rest = 1.0f / tp_tree16(sum);
    for (int64_t i = 0; i < head_dim; i++) out[i] = rest != rest ? rest : 0;
    if (rest != rest) return; /* NaN has no integers */
    for (int64_t begin = 0; begin < n_pos; begin += 16 * CACHE16_BLOCKS) {
        const int64_t end =
            begin + 16 * CACHE16_BLOCKS < n_pos ? begin + 16 * CACHE16_BLOCKS : n_pos;
        most = 0;
        for (int64_t p = begin; p < end; p++) {
            scores[p] *=
                tp_load_f32((const uint8_t *)a->v + p / 16 * bytes + 32 * dim + 4 * (p % 16));
            most = scores[p] > most ? scores[p] : most;
        }
        const float fit = most < CACHE16_SMALLEST ? 0 : (float)CACHE16_WEIGHT / most,
                    back = most * (1.0f / (float)CACHE16_WEIGHT);
        memset(sums, 0, (size_t)dim * sizeof *sums);
        for (int64_t p = begin; p < end; p += 2) {
            const int16_t *const pair =
                (const int16_t *)(const void *)((const uint8_t *)a->v + p / 16 * bytes) +
                p % 16 * dim;
            add_products(sums, pair, (int16_t)tp_round_even(scores[p] * fit),
                         (int16_t)(p + 1 < end ? tp_round_even(scores[p + 1] * fit) : 0), dim);
        }
        for (int64_t i = 0; i < head_dim; i++) out[i] += (float)sums[i] * back;
    }
    for (int64_t i = 0; i < head_dim; i++) out[i] *= rest;
}

void attention16_f32_scalar(const tp_attention *a) {
    assert(a->n_pos > a->skip && a->ld >= a->n_pos + a->tokens - 1);
    const int64_t rows = a->tokens * a->heads;
    float *const sums = a->work + rows * a->ld, *const whole = sums + cache16_dim(a->head_dim);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t t = r / a->heads, at = t * a->stride + r % a->heads * a->head_dim;
        attend(a, a->q + at, a->n_pos + t, a->work + r * a->ld, (int32_t *)(void *)sums,
               (int16_t *)(void *)whole, a->out + at);
    }
}

/* Steps as in cache16.h, integers round(x * (1 / step)), or zeros where the step is 0 (or as
 * good as that) or NaN. */
void cache16_f32_scalar(const float *k, const float *v, int64_t head_dim, int64_t position,
                        uint8_t *keys, uint8_t *values) {
    const int64_t dim = cache16_dim(head_dim);
    int16_t *const key = (int16_t *)(void *)keys, *const value = (int16_t *)(void *)values;
    uint32_t highest = 0; /* as in quantize_scalar.c */
    for (int64_t i = 0; i < head_dim; i++) {
        const uint32_t m = tp_float_bits(v[i]) & 0x7fffffffu;
        highest = m > highest ? m : highest;
    }
    const cache16_steps steps =
        steps_together(key_step_of(k, head_dim), value_step(tp_bits_float(highest)));
    const float by_k = inverse_step(steps.k), by_v = inverse_step(steps.v);
    for (int64_t i = 0; i < head_dim; i++) {
        key[cache16_key(position, i)] = to_int16(k[i], by_k);
        value[cache16_value(position, i, dim)] = to_int16(v[i], by_v);
    }
    memcpy(keys + 32 * dim + 4 * position, &steps.k, 4);
    memcpy(values + 32 * dim + 4 * position, &steps.v, 4);
}
