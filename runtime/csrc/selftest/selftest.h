/* Checks one kernel against scalar on deterministic data, for tp_self_test and the C tests. */
#ifndef TRITPACK_SELFTEST_H
#define TRITPACK_SELFTEST_H

#include "../internal.h"

typedef struct tp_check_shape {
    int64_t rows, cols, n;
    /* 1: codes 2, activations 127. 2: codes 2, activations -128. 3: codes 3, activations -128.
     * 4, 5, 6: NaN, -NaN, infinity somewhere in the first token's activations. 0: none of these. */
    int extreme;
} tp_check_shape;

/* Returns 0 if k gives the bits of scalar (any NaN counts as NaN, and where NaN goes in it has
 * to come out), 1 if not, -1 if out of memory. Buffers have exactly the size that k may use.
 * *digest takes in what scalar gave. */
int tp_check_kernel(const tp_kernel *k, tp_check_shape shape, uint64_t seed,
                    uint64_t *digest /* (1) */);

/* 1 if there are pages without access. */
#if defined(__wasm__)
#define TP_GUARD_PAGES 0
#else
#define TP_GUARD_PAGES 1
#endif
extern int
    tp_check_guarded; /* for the C tests: buffers end (1) or begin (2) at such a page; 0: malloc */

/* ---- testdata.c ---- */

/* xorshift64*. Returns a value below 2^31. *state must not be 0. */
uint32_t tp_random(uint64_t *state);
float tp_random_float(uint64_t *state); /* roughly normal, sigma 1 */
void tp_random_weights(int8_t *weights /* (n) */, int64_t n, uint64_t *state); /* -1, 0, 1 */
/* Returns a tensor of this shape without its data. Its tiles fit any number of columns that is a
 * multiple of 128. nbytes is 0 if the layout cannot hold the shape. */
tp_tensor tp_test_tensor(int layout, int64_t rows, int64_t cols);
/* Fills the bytes of a tensor. Scales differ from row to row where they may, and some are 0.
 * Returns -1 if out of memory. */
int tp_random_tensor(const tp_tensor *t, uint8_t *data /* (t->nbytes) */, uint64_t *state);
/* The same without header and trailer: a body of t->nbytes bytes. data has room for the whole
 * tensor. */
int tp_random_body(const tp_tensor *t, uint8_t *data /* (tp_tensor_nbytes) */,
                   uint8_t *body /* (t->nbytes) */, uint64_t *state);

#endif
