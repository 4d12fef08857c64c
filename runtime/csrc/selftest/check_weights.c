/* Checks of the kernels that read weights: products, float heads, unpacking and packing. */
#include <string.h>

#include "checks.h"

/* Writes the same code everywhere. No packer writes a 3, so for that all bits are set. */
static void fill_codes(const tp_tensor *w, uint8_t *body, int code) {
    int8_t *weights = tp_alloc((size_t)w->rows, (size_t)w->cols);
    if (w->layout == TP_LAYOUT_U8) memset(body, code, w->nbytes);
    else if (code == 3) memset(body, 0xff, w->nbytes);
    else if (weights) {
        memset(weights, code - 1, (size_t)(w->rows * w->cols));
        memset(body, 0, tp_body_nbytes(w->layout, w->rows, w->cols));
        tp_kernel_best(TP_OP_PACK, w->layout, TP_ISA_SCALAR)->pack(weights, w, body);
    }
    tp_free(weights);
}

/* Returns 1 if a token's sums are not those of the codes that scalar unpacks. A wrong activation
 * order would be wrong for every kernel alike, scalar included. */
static int differ_plain(const tp_tensor *w, const int8_t *q, int32_t less, const int32_t *got) {
    const tp_kernel *unpack = tp_kernel_best(TP_OP_UNPACK, w->layout, TP_ISA_SCALAR);
    uint8_t *codes = tp_alloc(1, (size_t)w->cols);
    int wrong = !codes;
    for (int64_t r = 0; codes && r < w->rows; r++) {
        int32_t sum = -less;
        if (unpack) unpack->unpack(w, r, r + 1, codes, w->cols);
        else memcpy(codes, (const uint8_t *)w->data + r * w->cols, (size_t)w->cols);
        for (int64_t i = 0; i < w->cols; i++) sum += codes[i] * q[i];
        wrong |= sum != got[r];
    }
    tp_free(codes);
    return wrong;
}

static void run_linear(const tp_kernel *k, const tp_tensor *w, const void *acts, int64_t step,
                       const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                       void *scratch, tp_prefetch next) {
    if (k->matvec) k->matvec(w, acts, step, sum_q, n, row0, row1, out, w->rows);
    else k->matmul(w, acts, sum_q, n, row0, row1, out, w->rows, scratch, next);
}

int tp_check_linear(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state,
                    tp_buffers *h) {
    const int64_t n = s.n;
    if (!tp_body_nbytes(k->layout, 4, s.cols)) s.cols = (s.cols + 255) / 256 * 256;
    if (!tp_body_nbytes(k->layout, s.rows, s.cols)) s.rows = (s.rows + 3) / 4 * 4;
    if (!tp_test_tensor(k->layout, s.rows, s.cols).nbytes) s.rows = (s.rows + 31) / 32 * 32;
    /* A nibble that means nothing takes a sign in the product, but not when it is unpacked. */
    if (k->layout == TP_LAYOUT_TL2 && s.extreme == 3) s.extreme = 2;
    const int64_t padded = tp_padded_cols(s.cols);
    tp_tensor w = tp_test_tensor(k->layout, s.rows, s.cols);
    w.nbytes = tp_body_nbytes(k->layout, s.rows,
                              s.cols); /* no byte more, so that reads after it are seen */
    uint8_t *data = tp_take(h, tp_tensor_nbytes(k->layout, s.rows, s.cols)),
            *body = tp_take(h, w.nbytes);
    int8_t *q = tp_take(h, (size_t)(n * padded));
    int32_t *sum = tp_take(h, (size_t)n * 4), *want = tp_take(h, (size_t)(n * s.rows) * 4),
            *got = tp_take(h, (size_t)(n * s.rows) * 4);
    const size_t scratch_bytes = tp_linear_scratch((tp_kernel_plan){k, NULL}, s.rows, s.cols, n);
    const size_t ordered_bytes =
        k->activation_order ? k->activation_order->bytes(k->activation_order, n, s.cols) : 64;
    uint8_t *scratch = tp_check_guarded
                           ? tp_take(h, scratch_bytes)
                           : tp_alloc(1, scratch_bytes); /* both hold whole lines, aligned */
    void *ordered = tp_check_guarded ? tp_take(h, ordered_bytes) : tp_alloc(1, ordered_bytes);
    int wrong = -1;
    if (!h->failed && scratch && ordered && tp_random_body(&w, data, body, state) == 0) {
        w.data = body;
        if (s.extreme && s.extreme < TP_POISONED) fill_codes(&w, body, s.extreme == 3 ? 3 : 2);
        for (int64_t t = 0; t < n; t++) {
            sum[t] = 0;
            for (int64_t i = 0; i < padded; i++) {
                const int v = i < s.cols ? (int)(tp_random(state) % 256) - 128 : 0;
                q[t * padded + i] = (int8_t)v;
                if (i < s.cols && s.extreme && s.extreme < TP_POISONED)
                    q[t * padded + i] = s.extreme == 1 ? 127 : -128;
                sum[t] += q[t * padded + i];
            }
        }
        const tp_activation_order *order = k->activation_order;
        const int64_t pieces = order ? (n + order->tokens - 1) / order->tokens : 0;
        for (int64_t i = 0; i < pieces; i++) order->fill(order, q, n, s.cols, i, ordered);
        const int64_t cut = s.rows / 3; /* two calls meet other remainders of rows */
        const void *acts = order ? ordered : (const void *)q;
        const int64_t step = order ? (int64_t)order->bytes(order, 1, s.cols) : padded;
        const tp_prefetch next = {(uintptr_t)body, w.nbytes};
        run_linear(scalar, &w, scalar->activation_order ? ordered : (const void *)q, step, sum, n,
                   0, s.rows, want, scratch, next);
        if (cut) run_linear(k, &w, acts, step, sum, n, 0, cut, got, scratch, next);
        run_linear(k, &w, acts, step, sum, n, cut, s.rows, got + cut, scratch, next);
        wrong = tp_differ(h, want, got, (size_t)(n * s.rows) * 4) ||
                (k->op == TP_OP_MATVEC &&
                 differ_plain(&w, q + (n - 1) * padded, sum[n - 1], got + (n - 1) * s.rows));
    }
    if (tp_check_guarded) return wrong;
    tp_free(ordered);
    tp_free(scratch);
    return wrong;
}

int tp_check_head(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state,
                  tp_buffers *h) {
    const int whole = tp_takes_acts16(k->layout);
    const int64_t unit = !whole ? 1 : k->layout == TP_LAYOUT_Q8_0 ? 32 : 256;
    const int64_t cols = (s.cols + unit - 1) / unit * unit;
    tp_tensor w = tp_test_tensor(k->layout, s.rows, cols);
    tp_lm_head_acts acts = {.padded = (cols + 63) / 64 * 64, .blocks = (cols + 255) / 256};
    uint8_t *data = tp_take(h, w.nbytes);
    float *x = tp_random_floats(h, s.n * cols, state),
          *want = tp_take(h, (size_t)(s.n * s.rows) * 4),
          *got = tp_take(h, (size_t)(s.n * s.rows) * 4);
    acts.x = x;
    acts.q = tp_take(h, (size_t)(s.n * acts.padded) * 2);
    acts.step = tp_take(h, (size_t)(s.n * acts.blocks) * 4);
    acts.bias = tp_take(h, (size_t)(s.n * acts.padded));
    if (h->failed) return -1;
    tp_random_tensor(&w, data, state);
    w.data = data;
    if (s.extreme && s.extreme < TP_POISONED)
        for (int64_t i = 0; i < s.n * cols; i++) x[i] = s.extreme == 1 ? 3.0f : -3.0f;
    tp_poison(x, cols, s.extreme, state);
    const tp_kernel *quantize16 = tp_kernel_best(TP_OP_QUANTIZE16, TP_LAYOUT_F32, TP_ISA_SCALAR);
    for (int64_t t = 0; whole && t < s.n; t++)
        quantize16->quantize16(x + t * cols, cols, acts.q + t * acts.padded,
                               acts.step + t * acts.blocks, acts.bias + t * (acts.padded / 4));
    const int64_t cut = s.rows / 3;
    scalar->lm_head(&w, &acts, s.n, 0, s.rows, want, s.rows);
    if (cut) k->lm_head(&w, &acts, s.n, 0, cut, got, s.rows);
    k->lm_head(&w, &acts, s.n, cut, s.rows, got + cut, s.rows);
    const int bad = tp_laundered(got, s.rows,
                                 whole && s.extreme >= TP_POISONED
                                     ? TP_POISONED
                                     : s.extreme); /* 16 bits have no code for infinity either */
    return tp_differ_floats(h, want, got, s.n * s.rows) || bad;
}

int tp_check_floatvec(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                      uint64_t *state, tp_buffers *h) {
    const int64_t unit = k->layout == TP_LAYOUT_U8 ? 16 : 128, blocks = 1 + s.n % 3,
                  cols = (s.cols + unit - 1) / unit * unit * blocks;
    const int64_t ld = (int64_t)tp_body_nbytes(k->layout, 1, cols);
    uint8_t *codes = tp_take(h, (size_t)(s.rows * ld));
    float *scales = tp_random_floats(h, s.rows * blocks, state),
          *x = tp_random_floats(h, cols, state);
    float *want = tp_take(h, (size_t)s.rows * 4), *got = tp_take(h, (size_t)s.rows * 4);
    if (h->failed) return -1;
    for (int64_t i = 0; i < s.rows * ld; i++)
        codes[i] = (uint8_t)(tp_random(state) % (k->layout == TP_LAYOUT_U8 ? 4 : 256));
    const int beside = k->layout == TP_LAYOUT_PQ2_0    ? 0
                       : k->layout == TP_LAYOUT_PTQ1_0 ? 26
                                                       : -1; /* where in a block its scale stands */
    for (int64_t c = 0; beside >= 0 && c < s.rows * (cols / 128); c++) {
        const uint16_t half = tp_float_f16(tp_random_float(state));
        memcpy(codes + c * (ld / (cols / 128)) + beside, &half, 2);
    }
    tp_poison(x, cols, s.extreme, state);
    scalar->matvec_f32(codes, ld, s.rows, cols, scales, blocks, x, want);
    k->matvec_f32(codes, ld, s.rows, cols, scales, blocks, x, got);
    return tp_laundered(got, s.rows, s.extreme) || tp_differ_floats(h, want, got, s.rows);
}

int tp_check_decode(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state,
                    tp_buffers *h) {
    const int64_t blocks = s.cols % 3 == 0 ? 3 : s.cols % 2 == 0 && s.rows % 2 ? 2 : 1;
    const int64_t bytes = k->layout == TP_LAYOUT_U8 ? s.cols : tp_padded_cols(s.cols) / 4;
    uint8_t *codes = tp_take(h, (size_t)bytes);
    float *scales = tp_random_floats(h, blocks, state), *want = tp_take(h, (size_t)s.cols * 4),
          *got = tp_take(h, (size_t)s.cols * 4);
    if (h->failed) return -1;
    for (int64_t i = 0; i < bytes; i++)
        codes[i] = (uint8_t)(tp_random(state) % (k->layout == TP_LAYOUT_U8 ? 4 : 256));
    scalar->dequantize(codes, s.cols, scales, blocks, want);
    k->dequantize(codes, s.cols, scales, blocks, got);
    return tp_differ_floats(h, want, got, s.cols);
}

/* Packing has to give scalar's bytes. Unpacking, in two calls and into longer rows, has to give
 * what was packed, and of random bytes what scalar gives. */
int tp_check_packers(const tp_kernel *k, tp_check_shape s, uint64_t *state, tp_buffers *h) {
    const tp_kernel *const scalar[2] = {tp_kernel_best(TP_OP_PACK, k->layout, TP_ISA_SCALAR),
                                        tp_kernel_best(TP_OP_UNPACK, k->layout, TP_ISA_SCALAR)};
    tp_tensor w = tp_test_tensor(k->layout, s.rows, s.cols);
    if (!w.nbytes)
        w = tp_test_tensor(k->layout, (s.rows + 31) / 32 * 32, (s.cols + 255) / 256 * 256);
    const size_t nbytes = tp_body_nbytes(k->layout, w.rows, w.cols),
                 count = (size_t)(w.rows * w.cols);
    const int64_t ld = w.cols + 3, cut = w.rows / 3;
    int8_t *codes = tp_take(h, count);
    uint8_t *body = tp_take(h, nbytes), *again = tp_take(h, nbytes),
            *want = tp_take(h, (size_t)(w.rows * ld)), *got = tp_take(h, (size_t)(w.rows * ld));
    if (h->failed) return -1;
    memset(body, 0, nbytes);
    memset(again, 0, nbytes);
    tp_random_weights(codes, (int64_t)count, state);
    scalar[0]->pack(codes, &w, body);
    (k->op == TP_OP_PACK ? k : scalar[0])->pack(codes, &w, again);
    int wrong = tp_differ(h, body, again, nbytes);
    w.data = body;
    for (int random = 0; random <= (k->op == TP_OP_UNPACK); random++) {
        const tp_kernel *unpack = k->op == TP_OP_UNPACK ? k : scalar[1];
        if (cut) unpack->unpack(&w, 0, cut, got, ld);
        unpack->unpack(&w, cut, w.rows, got + cut * ld, ld);
        if (random) scalar[1]->unpack(&w, 0, w.rows, want, ld);
        else
            for (size_t i = 0; i < count; i++)
                want[(int64_t)i / w.cols * ld + (int64_t)i % w.cols] = (uint8_t)(codes[i] + 1);
        wrong |= tp_differ(h, want, got, (size_t)(w.rows * ld));
        for (size_t i = 0; i < nbytes; i++) body[i] = (uint8_t)tp_random(state);
    }
    return wrong;
}
