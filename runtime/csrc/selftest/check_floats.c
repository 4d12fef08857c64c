/* Checks of the kernels that work on floats: attention, its cache of integers, elementwise ones;
 * and of the machine's limits. */
#include <string.h>

#include "../kernels/attention/cache16.h"
#include "../kernels/attention/cache32.h"
#include "checks.h"

int tp_check_attention(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                       uint64_t *state, tp_buffers *h) {
    /* Two of three times there are several tokens, whose heads stand between those of other
     * caches. */
    const int64_t n_pos = s.rows, dim = s.cols, heads = s.n, tokens = 1 + (n_pos + 1) % 3 * 10,
                  stride = (tokens > 1 ? heads + 1 : heads) * dim;
    const int sixteen = k->op == TP_OP_ATTENTION16;
    const int64_t last = n_pos + tokens - 1, ld = (last + 15) / 16 * 16 + 16,
                  n = (tokens - 1) * stride + heads * dim, skip = (n_pos - 1) % 5;
    float *q = tp_random_floats(h, n, state),
          *work = tp_take(h, (size_t)tp_attention_work(tokens, heads, dim, ld) * 4);
    float *want = tp_take(h, (size_t)n * 4), *got = tp_take(h, (size_t)n * 4);
    float *keys = tp_random_floats(h, last * dim, state),
          *values = tp_random_floats(h, last * dim, state);
    const int64_t bytes = cache16_bytes(cache16_dim(dim)), blocks = (last + 15) / 16;
    uint8_t *keys16 = tp_take(h, (size_t)(blocks * bytes)),
            *values16 = tp_take(h, (size_t)(blocks * bytes));
    const size_t bytes32 = (size_t)(blocks * cache32_bytes(dim));
    float *keys32 = tp_take(h, bytes32);
    if (h->failed) return -1;
    for (int64_t i = 0; s.extreme && i < last * dim;
         i++) { /* integers at their bounds: all are equal, or one outgrows the others */
        keys[i] = s.extreme % 2 || i % dim == 0 ? 1e3f : 0.0f;
        values[i] = s.extreme % 2 || i / dim % 3 ? 1e3f : -1e3f;
    }
    if (s.extreme == 1 &&
        n_pos > skip + 1) /* no query looks at this position, unless a dot product wraps */
        for (int64_t i = skip * dim; i < (skip + 1) * dim; i++) keys[i] = values[i] = -1e3f;
    for (int64_t i = 0; s.extreme && i < n; i++)
        q[i] = s.extreme % 2 || i % dim == 0 ? 10.0f : 0.0f;
    tp_poison(q, dim, s.extreme, state);
    if (s.extreme >= TP_POISONED && tokens > 1) { /* only the last token sees this NaN */
        memset(keys + (last - 1) * dim, 0xff, (size_t)dim * 4);
        memset(values + (last - 1) * dim, 0xff, (size_t)dim * 4);
    }
    memset(keys32, 0xff, bytes32); /* NaN at positions that nobody sees */
    for (int64_t p = 0; p < last; p++)
        for (int64_t i = 0; i < dim; i++) keys32[cache32_key(p, i, dim)] = keys[p * dim + i];
    if (sixteen) {
        memset(keys16, 0, (size_t)(blocks * bytes));
        memset(values16, 0, (size_t)(blocks * bytes));
        const tp_kernel *store = tp_kernel_best(TP_OP_CACHE16, TP_LAYOUT_F32, k->isa);
        for (int64_t p = 0; p < last; p++)
            store->cache16(keys + p * dim, values + p * dim, dim, p % 16, keys16 + p / 16 * bytes,
                           values16 + p / 16 * bytes);
    }
    tp_attention a = {.q = q,
                      .out = want,
                      .k = sixteen ? keys16 : (void *)keys32,
                      .v = sixteen ? values16 : (void *)values,
                      .tokens = tokens,
                      .heads = heads,
                      .head_dim = dim,
                      .stride = stride,
                      .n_pos = n_pos,
                      .skip = skip,
                      .scale = s.extreme ? 3.0f : 0.125f,
                      .ld = ld,
                      .work = work};
    scalar->attention(&a);
    a.out = got;
    a.prefetch = tokens == 1;
    k->attention(&a);
    int wrong = tp_laundered(got, dim, s.extreme) || tp_differ_floats(h, want, got, n);
    for (int64_t i = 0; s.extreme == 1 && i < dim;
         i++) /* sums that wrap would do so in scalar too */
        wrong |= !(got[i] > 999.0f && got[i] < 1001.0f);
    return wrong;
}

int tp_check_cache16(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state,
                     tp_buffers *h) {
    const int64_t dim = (s.cols + 1) / 2 * 2, bytes = cache16_bytes(cache16_dim(dim));
    float *keys = tp_random_floats(h, dim, state), *values = tp_random_floats(h, dim, state);
    uint8_t *blocks[4]; /* keys and values of scalar, then of k */
    for (int i = 0; i < 4; i++) {
        blocks[i] = tp_take(h, (size_t)bytes);
        if (h->failed) return -1;
        memset(blocks[i], 0x55, (size_t)bytes);
    }
    for (int64_t p = 0; p < 16; p++) {
        for (int64_t i = 0; i < dim; i++) {
            const float size = p == 3 ? 0.0f : p == 4 && i ? 1e-20f : p == 5 ? 1e-37f : 1.0f;
            keys[i] = tp_random_float(state) * size;
            values[i] = tp_random_float(state) * size;
        }
        if (p == 6) tp_poison(keys, dim, s.extreme, state);
        if (p == 7) tp_poison(values, dim, s.extreme, state);
        scalar->cache16(keys, values, dim, p, blocks[0], blocks[1]);
        k->cache16(keys, values, dim, p, blocks[2], blocks[3]);
    }
    return tp_differ(h, blocks[0], blocks[2], (size_t)bytes) |
           tp_differ(h, blocks[1], blocks[3], (size_t)bytes);
}

int tp_check_elementwise(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                         uint64_t *state, tp_buffers *h) {
    const int64_t n = s.cols;
    float *x = tp_random_floats(h, n, state), *w = tp_random_floats(h, n, state),
          *want = tp_take(h, (size_t)n * 4), *got = tp_take(h, (size_t)n * 4);
    int8_t *q0 = tp_take(h, (size_t)n), *q1 = tp_take(h, (size_t)n);
    int32_t *sums = tp_take(h, (size_t)n * 4);
    float scale[2] = {0, 0};
    int32_t sum[2] = {0, 0};
    int wrong = 0;
    if (h->failed) return -1;
    for (int64_t i = 0; i < n; i++)
        x[i] *= s.extreme == 1 ? 100.0f : s.extreme && s.extreme < TP_POISONED ? 1e-9f : 4.0f;
    tp_poison(x, n, s.extreme, state);
    int64_t at = 0;
    while (at < n - 1 && x[at] - x[at] == 0) at++; /* for glu: where the poison went */
    switch (k->op) {
        case TP_OP_QUANTIZE:
            scalar->quantize(x, n, q0, &scale[0], &sum[0]);
            k->quantize(x, n, q1, &scale[1], &sum[1]);
            if (s.extreme >= TP_POISONED) {
                for (int64_t i = 0; i < n; i++) wrong |= q1[i] != 0;
                wrong |= tp_float_bits(scale[1]) != TP_NAN_BITS || sum[1] != 0;
            }
            return wrong | tp_differ(h, q0, q1, (size_t)n) ||
                   tp_differ(h, &scale[0], &scale[1], 4) || sum[0] != sum[1];
        case TP_OP_RESCALE:
            for (int64_t i = 0; i < n; i++) sums[i] = (int32_t)tp_random(state) - (1 << 30);
            scalar->rescale(sums, x[0], w, n, want);
            k->rescale(sums, x[0], w, n, got);
            return tp_differ_floats(h, want, got, n);
        case TP_OP_RMSNORM:
            scalar->rmsnorm(x, w, n, 1e-5f, want);
            k->rmsnorm(x, w, n, 1e-5f, got);
            return tp_laundered(got, n, s.extreme) || tp_differ_floats(h, want, got, n);
        case TP_OP_GLU:
            for (int act = TP_ACT_RELU2; act <= TP_ACT_SIGMOID; act++) {
                scalar->glu(x, w, n, act, want);
                k->glu(x, w, n, act, got);
                wrong |= tp_differ_floats(h, want, got, n) | tp_laundered(got + at, 1, s.extreme);
            }
            return wrong;
        case TP_OP_ROPE:
        case TP_OP_ROPEPAIRS:
            memcpy(want, x, (size_t)n * 4);
            memcpy(got, x, (size_t)n * 4);
            scalar->rope(want, 1, n / 2 * 2, w);
            k->rope(got, 1, n / 2 * 2, w);
            return tp_differ_floats(h, want, got, n);
        case TP_OP_READ: {
            const int64_t bytes = n * 4 / 256 * 256;
            return k->roofline((const uint8_t *)x, bytes) !=
                   scalar->roofline((const uint8_t *)x, bytes);
        }
        case TP_OP_DOTS: {
            const int exact = k->layout == TP_LAYOUT_F32; /* small sums are */
            const uint8_t us[2] = {(uint8_t)(1 + n % (exact ? 5 : 255)),
                                   (uint8_t)(exact ? 253 + n % 6 : 200 + n % 50)};
            return k->roofline(us, n) != scalar->roofline(us, n);
        }
        default: return 0; /* the checks of the q8_0 and q6_k heads cover quantize16 */
    }
}
