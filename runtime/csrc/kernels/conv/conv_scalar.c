/* The causal convolution of recurrent layers in plain C: the specification. */
#include "../common.h"

/* y = taps[0] * x[t - n + 1] + ... + taps[n - 1] * x[t], in this order; then y / (1 + exp(-y)). */
void conv_f32_scalar(const tp_conv *a) {
    const int64_t stride = a->stride, past = a->taps - 1;
    for (int64_t t = 0; t < a->tokens; t++)
        for (int64_t c = 0; c < a->channels; c++) {
            float *const x = a->x + t * stride + c, *const window = a->window + c;
            const float *const w = a->weights + c;
            float sum = w[0] * (past ? window[0] : *x);
            for (int64_t j = 1; j < past; j++) sum += w[j * stride] * window[j * stride];
            if (past) sum += w[past * stride] * *x;
            for (int64_t j = 1; j < past; j++) window[(j - 1) * stride] = window[j * stride];
            if (past) window[(past - 1) * stride] = *x;
            *x = sum / (1.0f + tp_exp(-sum));
        }
}
