/* Gated activations. */
#ifndef TRITPACK_GLU_H
#define TRITPACK_GLU_H

#include "../simd_f32/lanes16.h"

TP_INLINE lanes activated(lanes g, int activation) {
    if (activation == TP_ACT_RELU2) {
        const lanes r =
            lanes_max(lanes_splat(0.0f), g); /* of two, max gives the second if one is NaN */
        return lanes_mul(r, r);
    }
    lanes slope = g;
    if (activation == TP_ACT_GELU_TANH)
        slope = lanes_mul(
            lanes_splat(TP_GELU_SLOPE),
            lanes_add(g, lanes_mul(lanes_splat(TP_GELU_CUBE), lanes_mul(lanes_mul(g, g), g))));
    const lanes over = activation == TP_ACT_SIGMOID ? lanes_splat(1.0f) : g;
    return lanes_div(over,
                     lanes_add(lanes_splat(1.0f), lanes_exp(lanes_sub(lanes_splat(-0.0f), slope))));
}

TP_INLINE void glu_body(const float *gate, const float *up, int64_t cols, int activation,
                        float *y) {
    assert(activation >= TP_ACT_RELU2 && activation <= TP_ACT_SIGMOID);
    int64_t i = 0;
    for (; i + 16 <= cols; i += 16)
        lanes_store(y + i,
                    lanes_mul(activated(lanes_load(gate + i), activation), lanes_load(up + i)));
    if (i < cols)
        lanes_store_n(y + i,
                      lanes_mul(activated(lanes_load_n(gate + i, cols - i), activation),
                                lanes_load_n(up + i, cols - i)),
                      cols - i);
}

#endif
