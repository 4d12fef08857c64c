/* What the checks of kernels share. */
#ifndef TRITPACK_CHECKS_H
#define TRITPACK_CHECKS_H

#include "selftest.h"

/* ---- buffers.c ---- */

/* Buffers of one check, freed together. Each has exactly the bytes asked for: malloc gives them, so
 * that a sanitizer sees an access outside; or they end (tp_check_guarded 1) or begin (2) at a page
 * without access, which shows it on any machine. */
typedef struct tp_buffers {
    void *all[24], *maps[24];
    size_t sizes[24];
    int count, failed;
    uint64_t digest; /* of what scalar gave */
} tp_buffers;

void *tp_take(tp_buffers *h, size_t bytes); /* filled with 0x55; NULL sets failed */
void tp_release(tp_buffers *h);
float *tp_random_floats(tp_buffers *h, int64_t n, uint64_t *state);

/* Takes `want` into the digest (FNV-1a). Returns 1 if the two differ. */
int tp_differ(tp_buffers *h, const void *want, const void *got, size_t bytes);
/* The same for floats, where any NaN equals any other. */
int tp_differ_floats(tp_buffers *h, float *want, float *got, int64_t n);

enum { TP_POISONED = 4 }; /* from here on tp_check_shape.extreme names a NaN or infinity */

/* Writes that value to one of n places. */
void tp_poison(float *x, int64_t n, int extreme, uint64_t *state);
/* Returns 1 if a NaN went in and not all n values are NaN. */
int tp_laundered(const float *got, int64_t n, int extreme);

/* ---- check_weights.c, check_floats.c, check_recurrence.c, check_convert.c ----
 * 0 if k gives the bits of scalar, 1 if not, -1 if out of memory */
typedef int tp_check_fn(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s,
                        uint64_t *state, tp_buffers *h);
tp_check_fn tp_check_linear, tp_check_head, tp_check_floatvec, tp_check_decode, tp_check_attention,
    tp_check_cache16, tp_check_elementwise, tp_check_hadamard, tp_check_conv, tp_check_delta_rule,
    tp_check_convert;
int tp_check_packers(const tp_kernel *k, tp_check_shape s, uint64_t *state, tp_buffers *h);

#endif
