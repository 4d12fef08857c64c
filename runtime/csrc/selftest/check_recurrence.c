/* Checks of the kernels of rotated bases and recurrent layers. */
#include <string.h>

#include "checks.h"

/* Every block that divides the row. */
int tp_check_hadamard(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                      uint64_t *state, tp_buffers *h) {
    const int64_t n = s.cols;
    float *x = tp_random_floats(h, n, state), *signs = tp_take(h, (size_t)n * 4),
          *want = tp_take(h, (size_t)n * 4), *got = tp_take(h, (size_t)n * 4);
    int wrong = 0;
    if (h->failed) return -1;
    for (int64_t i = 0; i < n; i++) signs[i] = tp_random(state) % 2 ? 1.0f : -1.0f;
    tp_poison(x, n, s.extreme, state);
    for (int64_t block = 2; n % block == 0; block *= 2)
        for (int side = 0; side < 3; side++) { /* signs before, after, in place without any */
            const float *const before = side == 0 ? signs : NULL, *const after =
                                                                      side == 1 ? signs : NULL;
            memcpy(got, x, (size_t)n * 4);
            scalar->hadamard(x, before, after, n, block, want);
            k->hadamard(side == 2 ? got : x, before, after, n, block, got);
            wrong |= tp_differ_floats(h, want, got, n);
        }
    return wrong;
}

/* Tokens of channels that stand between others, which stay as they are. */
int tp_check_conv(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state,
                  tp_buffers *h) {
    const int64_t channels = s.cols, stride = channels + s.n % 2 * 3, tokens = s.n,
                  taps = 1 + s.rows % 5;
    float *x[2], *window[2];
    const float *const weights = tp_random_floats(h, taps * stride, state);
    for (int i = 0; i < 2; i++) {
        x[i] = tp_random_floats(h, tokens * stride, state);
        window[i] = tp_random_floats(h, taps * stride, state);
    }
    if (h->failed) return -1;
    tp_poison(x[0], channels, s.extreme, state);
    memcpy(x[1], x[0], (size_t)(tokens * stride) * 4);
    memcpy(window[1], window[0], (size_t)(taps * stride) * 4);
    for (int i = 0; i < 2; i++)
        (i ? k : scalar)
            ->conv(&(tp_conv){.x = x[i],
                              .weights = weights,
                              .window = window[i],
                              .tokens = tokens,
                              .channels = channels,
                              .taps = taps,
                              .stride = stride});
    return tp_differ_floats(h, x[0], x[1], tokens * stride) |
           tp_differ_floats(h, window[0], window[1], taps * stride);
}

/* Keys of unit length, as they are: states of others would grow from token to token. */
int tp_check_delta_rule(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                        uint64_t *state, tp_buffers *h) {
    const int64_t size = s.cols, tokens = s.n, columns = 1 + (s.rows + s.cols) % 16,
                  stride = 3 * size + columns;
    float *const x = tp_random_floats(h, tokens * stride, state), *const gates = tp_random_floats(
                                                                      h, 2 * tokens, state);
    float *states[2], *out[2];
    for (int i = 0; i < 2; i++) {
        states[i] = tp_random_floats(h, size * 16, state);
        out[i] = tp_take(h, (size_t)(tokens * columns) * 4);
    }
    if (h->failed) return -1;
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < 2 * size; i++) x[t * stride + i] /= (float)size;
        gates[2 * t] = 0.9f;
    }
    tp_poison(x, size, s.extreme, state);
    memcpy(states[1], states[0], (size_t)(size * 16) * 4);
    for (int i = 0; i < 2; i++)
        (i ? k : scalar)
            ->delta_rule(&(tp_delta_rule){.q = x,
                                          .k = x + size,
                                          .v = x + 2 * size,
                                          .decay = gates,
                                          .beta = gates + 1,
                                          .state = states[i],
                                          .out = out[i],
                                          .tokens = tokens,
                                          .size = size,
                                          .columns = columns,
                                          .stride = stride,
                                          .heads = 2,
                                          .out_stride = columns});
    int wrong = tp_differ_floats(h, out[0], out[1], tokens * columns);
    for (int64_t i = 0; i < size; i++) /* the other columns may be any */
        wrong |= tp_differ_floats(h, states[0] + 16 * i, states[1] + 16 * i, columns);
    return wrong;
}
