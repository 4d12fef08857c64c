/* What the fuzzers share: reading numbers from the input, memory that ends where it must, demands. */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/csrc/internal.h"

enum { MOST_BYTES = 1 << 18 }; /* of a tensor that is tried */

/* Ends the process where a promise of tritpack.h is broken: libFuzzer then keeps the input. */
#define DEMAND(condition, ...) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__); \
            fprintf(stderr, "\n"); \
            abort(); \
        } \
    } while (0)

typedef struct input {
    const uint8_t *at, *end;
} input;

static inline uint64_t take(input *in, size_t bytes) {
    uint64_t value = 0;
    const size_t left = (size_t)(in->end - in->at), count = bytes < left ? bytes : left;
    memcpy(&value, in->at, count);
    in->at += count;
    return value;
}

/* A size: the first byte says whether it is a small number, a multiple of what layouts ask for, or
 * anything that fits in 64 bits. */
static inline int64_t take_size(input *in) {
    static const int units[] = {1, 2, 8, 32, 64, 128, 256};
    const uint64_t kind = take(in, 1);
    if (kind >= 0xf0) return (int64_t)take(in, 8);
    return (int64_t)take(in, 1) * units[kind % 7];
}

/* Fills memory with what is left of the input, over and over, after a byte that is the step between
 * repetitions: so that a short input makes a large tensor whose rows are not all equal. */
static inline void fill(input in, uint8_t *out, size_t bytes) {
    const uint8_t step = (uint8_t)take(&in, 1);
    const size_t left = (size_t)(in.end - in.at);
    for (size_t i = 0; i < bytes; i++)
        out[i] = left ? (uint8_t)(in.at[i % left] + step * (i / left)) : step;
}

static inline void *memory(size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p) abort();
    return p;
}

/* Replaces what means nothing in a ternary tensor by zeros: what it adds depends on the kernel, as
 * tritpack.h says. Returns 1 if all kernels have to agree then, which needs scales that are not 0. */
static inline int tame(const tp_tensor *t) {
    if (tp_tensor_check(t) != TP_OK || !tp_is_ternary(t->layout)) return 0;
    const tp_ternary parts = tp_ternary_of(t);
    uint8_t *body = (uint8_t *)(uintptr_t)parts.body.data;
    const size_t weights = (size_t)(t->rows * t->cols), bytes = (size_t)parts.body.nbytes;
    int8_t *codes = memory(weights);
    uint8_t *before = memory(bytes);
    memcpy(before, body, bytes);
    DEMAND(tp_unpack(t->layout, t->tile, t->rows, t->cols, body, bytes, codes) == TP_OK, "unpack");
    for (size_t i = 0; i < weights; i++) codes[i] = codes[i] == 2 ? 0 : codes[i];
    memset(body, 0, bytes);
    int agree = 1;
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t b = 0; b < parts.col_blocks; b++) {
            const uint8_t *at = tp_scales_at(&parts, r) + b * parts.block_bytes;
            if (at >= body && at < body + bytes) /* between the codes */
                memcpy(body + (at - body), before + (at - body), parts.half ? 2 : 4);
            agree &= tp_scale_value(&parts, at) != 0;
        }
    DEMAND(tp_pack(t->layout, t->tile, t->rows, t->cols, codes, body, bytes) == TP_OK, "pack");
    free(before);
    free(codes);
    return agree;
}

#endif
