/* One kernel against scalar on deterministic data: the body of tp_self_test and of the C tests. */
#ifndef TRITPACK_SELFTEST_H
#define TRITPACK_SELFTEST_H

#include "../internal.h"

typedef struct tp_check_shape {
    int64_t rows, cols, n;
    int extreme;                /* 1: codes 2, activations 127; 2: codes 2, activations -128; 3: codes 3, activations -128;
                                 * 4, 5, 6: NaN, -NaN, infinity somewhere in the first token's activations */
} tp_check_shape;

/* Fills exact-size heap buffers, so that a sanitizer sees any read or write outside.
 * Returns 0 if k gives the bits of scalar (any NaN for NaN, and NaN where NaN went in), 1 if not, -1 if out of memory.
 * *digest takes in what scalar gave. */
int tp_check_kernel(const tp_kernel *k, tp_check_shape shape, uint64_t seed, uint64_t *digest /* (1) */);

/* Whether there are pages without access. */
#if defined(__wasm__)
#define TP_GUARD_PAGES 0
#else
#define TP_GUARD_PAGES 1
#endif
extern int tp_check_guarded;    /* 1, 2: buffers end or begin at pages without access, for the C tests; 0: malloc */

/* ---- testdata.c ---- */

/* xorshift64*: a value below 2^31. state must not be 0. */
uint32_t tp_random(uint64_t *state);
float tp_random_float(uint64_t *state);     /* roughly normal, sigma 1 */
void tp_random_weights(int8_t *weights /* (n) */, int64_t n, uint64_t *state);     /* -1, 0, 1 */
/* A tensor of this shape, without its data, in tiles that fit any columns that are a multiple of 128. nbytes 0: it cannot be held. */
tp_tensor tp_test_tensor(int layout, int64_t rows, int64_t cols);
/* Fills its bytes. Scales differ from row to row where they may, and some are 0. Returns -1 if out of memory. */
int tp_random_tensor(const tp_tensor *t, uint8_t *data /* (t->nbytes) */, uint64_t *state);
/* The same without header and trailer: a body of t->nbytes. data: room for the whole. */
int tp_random_body(const tp_tensor *t, uint8_t *data /* (tp_tensor_nbytes) */, uint8_t *body /* (t->nbytes) */, uint64_t *state);

#endif
