/* A KV cache of 16-bit integers, each key and value with a step of its own: x ~ integer * step.
 *
 * Positions stand in blocks of sixteen, of keys and values alike: 32 * dim bytes of integers,
 * dim being head_dim rounded up to 16, then sixteen float steps. Keys are int16 (dim / 2, 16
 * positions, 2), values (8 pairs of positions, dim, 2): the two numbers in a 32-bit lane are
 * multiplied and added by one instruction, which every instruction set has, and lanes are
 * positions or columns.
 *
 * Sums of integers have no order, as long as they fit. By Cauchy and Schwarz a dot product of
 * query and key, and any part of it, is at most (NORM + sqrt(dim) / 2)^2 < 2^31 (the half is
 * rounding); so is a sum of weights times values over BLOCKS blocks, at most 32 * WEIGHT *
 * VALUE. On normal random numbers (head_dim 128, 512 positions) the output is off by 3e-4 to
 * 5e-4 of its norm, that of an f16 cache by 3e-4, or 18e-4 where scores differ by 30. A column
 * of the values 50 times as large as the others makes 12e-4 to 19e-4 of it for those, 3e-4 to
 * 6e-4 in f16. */
#ifndef TRITPACK_CACHE16_H
#define TRITPACK_CACHE16_H

#include "../common.h"

enum {
    CACHE16_NORM = 46000,
    CACHE16_KEY = 32767,
    CACHE16_VALUE = 16383,
    CACHE16_WEIGHT = 4095,
    CACHE16_BLOCKS = 2
};
#define CACHE16_SMALLEST 1e-30f /* what is below counts as zero: of squares and of weights */

static inline int64_t cache16_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
static inline int64_t cache16_bytes(int64_t dim) { return 32 * dim + 64; } /* of a block */
static inline int64_t cache16_key(int64_t position, int64_t i) {
    return i / 2 * 32 + position * 2 + i % 2;
} /* within a block */
static inline int64_t cache16_value(int64_t position, int64_t i, int64_t dim) {
    return position / 2 * dim * 2 + i * 2 + position % 2;
}

/* The step by which no magnitude leaves 16 bits and no sum of squares CACHE16_NORM^2. NaN where
 * that is not finite. */
static inline float key_step(float highest, float squares) {
    if (!(squares - squares == 0)) return tp_bits_float(TP_NAN_BITS);
    if (squares < CACHE16_SMALLEST) return 0;
    const float a = highest / (float)CACHE16_KEY,
                b = __builtin_sqrtf(squares) / (float)CACHE16_NORM;
    return a > b ? a : b;
}
static inline float value_step(float highest) {
    return highest - highest == 0 ? highest / (float)CACHE16_VALUE : tp_bits_float(TP_NAN_BITS);
}

/* NaN or an infinity in a key or a value: whoever sees the position gets NaN by the key's step,
 * and nobody else by the value's. */
typedef struct cache16_steps {
    float k, v;
} cache16_steps;
static inline cache16_steps steps_together(float k, float v) {
    return k != k || v != v ? (cache16_steps){tp_bits_float(TP_NAN_BITS), 0}
                            : (cache16_steps){k, v};
}
/* integer = round(x * inverse_step(step)) */
static inline float inverse_step(float step) {
    return step > CACHE16_SMALLEST ? 1.0f / step : 0;
} /* of NaN: 0 */

/* Of a query or key x (n), in plain C: squares in the order of common.h. */
static inline float key_step_of(const float *x, int64_t n) {
    float squares[16] = {0}, highest = 0;
    for (int64_t i = 0; i < n; i++) {
        const float m = x[i] < 0 ? -x[i] : x[i];
        squares[i % 16] += x[i] * x[i];
        highest = m > highest ? m : highest;
    }
    return key_step(highest, tp_tree16(squares));
}
/* round(x * by), and 0 for any x if by is. */
static inline int16_t to_int16(float x, float by) {
    return (int16_t)(by > 0 ? tp_round_even(x * by) : 0);
}

#endif
