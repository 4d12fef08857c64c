/* Checks of the kernels of conversions. */
#include <string.h>

#include "checks.h"

/* Floats of many magnitudes, some halfway between two of a 16-bit type. */
static void odd_floats(float *x, int64_t n, int extreme, uint64_t *state) {
    static const float sizes[] = {1.0f, 0.0f, 1e-7f, 3e-39f, -0.0f, 2e4f};
    for (int64_t i = 0; i < n; i++) {
        const float value = tp_random_float(state) * sizes[extreme == 2 ? tp_random(state) % 6 : 0];
        const uint32_t bits = tp_float_bits(value);
        x[i] = i % 3 ? value : tp_bits_float((bits & 0xffff0000u) | (i % 2 ? 0x8000u : 0x1000u));
    }
    for (int64_t b = 0; extreme == 1 && b < n;
         b += 32) /* blocks of zeros, of one sign, of one value */
        for (int64_t i = b; i < n && i < b + 32; i++)
            x[i] = b / 32 % 4 == 0   ? 0.0f
                   : b / 32 % 4 == 1 ? x[b]
                   : b / 32 % 4 == 2 ? 2 + x[i]
                                     : x[i] - 9;
}

static int check_encode(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                        uint64_t *state, tp_buffers *h) {
    const int64_t unit = !tp_takes_acts16(k->layout)   ? 1
                         : k->layout == TP_LAYOUT_Q8_0 ? 32
                                                       : 256,
                  n = (s.cols + unit - 1) / unit * unit;
    const size_t nbytes = tp_tensor_nbytes(k->layout, 1, n);
    float *x = tp_take(h, (size_t)n * 4);
    void *want = tp_take(h, nbytes), *got = tp_take(h, nbytes);
    if (h->failed) return -1;
    odd_floats(x, n, s.extreme, state);
    tp_poison(x, n, s.extreme, state);
    const unsigned flags = scalar->encode(x, n, want);
    if (k->encode(x, n, got) != flags) return 1;
    if (s.extreme >= TP_POISONED) return !(flags & TP_ENCODE_NOT_FINITE);
    return flags & TP_ENCODE_OVERFLOW ? 0 : tp_differ(h, want, got, nbytes);
}

static int check_widen(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                       uint64_t *state, tp_buffers *h) {
    uint16_t *from = tp_take(h, (size_t)s.cols * 2);
    float *want = tp_take(h, (size_t)s.cols * 4), *got = tp_take(h, (size_t)s.cols * 4);
    if (h->failed) return -1;
    for (int64_t i = 0; i < s.cols; i++) from[i] = (uint16_t)tp_random(state);
    scalar->widen(from, s.cols, want);
    k->widen(from, s.cols, got);
    return tp_differ_floats(h, want, got, s.cols);
}

static int check_absmean(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                         uint64_t *state, tp_buffers *h) {
    const int64_t n = s.cols;
    float *x = tp_take(h, (size_t)n * 4);
    int8_t *want = tp_take(h, (size_t)n), *got = tp_take(h, (size_t)n);
    double lanes[2][16] = {{0}};
    if (h->failed) return -1;
    odd_floats(x, n, s.extreme, state);
    if (k->op == TP_OP_ABS_SUM) {
        const int64_t cut = n / 32 * 16; /* lanes go on where they were */
        scalar->abs_sum(x, n, lanes[0]);
        k->abs_sum(x, cut, lanes[1]);
        k->abs_sum(x + cut, n - cut, lanes[1]);
        return tp_differ(h, lanes[0], lanes[1], sizeof *lanes);
    }
    for (int64_t i = 0; i < n; i += 5) x[i] = i % 2 ? 0.25f : -0.25f; /* ties */
    tp_poison(x, n, s.extreme, state);
    scalar->absmean(x, n, 2.0f, want);
    k->absmean(x, n, 2.0f, got);
    return tp_differ(h, want, got, (size_t)n);
}

static int check_checksum(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                          uint64_t *state, tp_buffers *h) {
    const uint64_t words = (uint64_t)s.cols, first = s.extreme ? UINT64_MAX - 3 : words;
    uint8_t *from = tp_take(h, 8 * words);
    if (h->failed) return -1;
    for (uint64_t i = 0; i < 8 * words; i++) from[i] = (uint8_t)tp_random(state);
    const uint64_t want = scalar->checksum(from, words, first),
                   got = k->checksum(from, words, first);
    return tp_differ(h, &want, &got, sizeof got);
}

int tp_check_convert(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state,
                     tp_buffers *h) {
    switch (k->op) {
        case TP_OP_ENCODE: return check_encode(k, scalar, s, state, h);
        case TP_OP_WIDEN: return check_widen(k, scalar, s, state, h);
        case TP_OP_CHECKSUM: return check_checksum(k, scalar, s, state, h);
        default: return check_absmean(k, scalar, s, state, h);
    }
}
