/* Gated activations in plain C: the specification. */
#include "../common.h"

/* relu2: max(g, 0)^2 * u, NaN if g is. silu: (g / (1 + exp(-g))) * u. gelu in its tanh form is a
 * silu of another slope, 0.5 (1 + tanh v) = 1 / (1 + exp(-2 v)): (g / (1 + exp(-w))) * u, w = 2
 * sqrt(2 / pi) * (g + 0.044715 * ((g * g) * g)). sigmoid: (1 / (1 + exp(-g))) * u. */
void glu_f32_scalar(const float *gate, const float *up, int64_t cols, int activation, float *y) {
    assert(activation >= TP_ACT_RELU2 && activation <= TP_ACT_SIGMOID);
    for (int64_t i = 0; i < cols; i++) {
        const float g = gate[i], r = g < 0.0f ? 0.0f : g;
        const float slope =
            activation == TP_ACT_GELU_TANH ? TP_GELU_SLOPE * (g + TP_GELU_CUBE * ((g * g) * g)) : g;
        const float over = activation == TP_ACT_SIGMOID ? 1.0f : g;
        y[i] = (activation == TP_ACT_RELU2 ? r * r : over / (1.0f + tp_exp(-slope))) * up[i];
    }
}
