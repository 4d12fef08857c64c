#include "../common.h"

/* relu2: max(g, 0)^2 * u, NaN if g is. silu: (g / (1 + exp(-g))) * u. */
void glu_f32_scalar(const float *gate, const float *up, int64_t cols, int activation, float *y) {
    assert(activation == TP_ACT_RELU2 || activation == TP_ACT_SILU);
    for (int64_t i = 0; i < cols; i++) {
        const float g = gate[i], r = g < 0.0f ? 0.0f : g;
        y[i] = (activation == TP_ACT_SILU ? g / (1.0f + tp_exp(-g)) : r * r) * up[i];
    }
}
