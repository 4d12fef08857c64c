/* The gated delta rule in plain C: the specification. */
#include "../common.h"

/* A sum over keys: key i to part i mod 4, in order of i; then (0 + 2) + (1 + 3). Per token, for a
 * column s of the state: s = decay * s; u = beta * (v - sum of k s); s = s + k u; out = sum of
 * q s. */
void delta_rule_f32_scalar(const tp_delta_rule *a) {
    for (int64_t t = 0; t < a->tokens; t++) {
        const float *const q = a->q + t * a->stride, *const k = a->k + t * a->stride;
        for (int64_t c = 0; c < a->columns; c++) {
            float *const s = a->state + c;
            float read[4] = {0}, out[4] = {0};
            for (int64_t i = 0; i < a->size; i++) {
                s[16 * i] *= a->decay[t * a->heads];
                read[i % 4] += k[i] * s[16 * i];
            }
            const float u = a->beta[t * a->heads] *
                            (a->v[t * a->stride + c] - ((read[0] + read[2]) + (read[1] + read[3])));
            for (int64_t i = 0; i < a->size; i++) {
                s[16 * i] += k[i] * u;
                out[i % 4] += q[i] * s[16 * i];
            }
            a->out[t * a->out_stride + c] = (out[0] + out[2]) + (out[1] + out[3]);
        }
    }
}
