/* The causal convolution of recurrent layers, sixteen channels at once. */
#ifndef TRITPACK_CONV_H
#define TRITPACK_CONV_H

#include "../simd_f32/lanes16.h"

TP_INLINE lanes conv_load(const float *p, int64_t n) {
    return n < 16 ? lanes_load_n(p, n) : lanes_load(p);
}
TP_INLINE void conv_store(float *p, lanes a, int64_t n) {
    if (n < 16) lanes_store_n(p, a, n);
    else lanes_store(p, a);
}

/* One token of n channels, sixteen at most. */
TP_INLINE void conv_token(float *x, float *window, const float *w, int64_t past, int64_t stride,
                          int64_t n) {
    const lanes now = conv_load(x, n);
    lanes sum = lanes_mul(conv_load(w, n), past ? conv_load(window, n) : now);
    for (int64_t j = 1; j < past; j++) {
        const lanes before = conv_load(window + j * stride, n);
        sum = lanes_add(sum, lanes_mul(conv_load(w + j * stride, n), before));
        conv_store(window + (j - 1) * stride, before, n);
    }
    if (past) {
        sum = lanes_add(sum, lanes_mul(conv_load(w + past * stride, n), now));
        conv_store(window + (past - 1) * stride, now, n);
    }
    const lanes minus = lanes_sub(lanes_splat(-0.0f), sum);
    conv_store(x, lanes_div(sum, lanes_add(lanes_splat(1.0f), lanes_exp(minus))), n);
}

TP_INLINE void conv_body(const tp_conv *a) {
    for (int64_t t = 0; t < a->tokens; t++)
        for (int64_t c = 0; c < a->channels; c += 16)
            conv_token(a->x + t * a->stride + c, a->window + c, a->weights + c, a->taps - 1,
                       a->stride, a->channels - c);
}

#endif
