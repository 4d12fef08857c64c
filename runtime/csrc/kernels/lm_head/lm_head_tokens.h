/* Tokens of a head of quantised weights: a row is taken apart once for a few tokens, whose lanes
 * stay in registers and whose activations stay in L1 while the rows of the chunk pass. */
#ifndef TRITPACK_LM_HEAD_TOKENS_H
#define TRITPACK_LM_HEAD_TOKENS_H

#include "../common.h"

/* Keeps the tokens apart: gcc 12 makes the products of all of them first, and spills for it. */
#define HEAD_TOKEN_DONE(sum, reg) __asm__("" : "+" reg(sum))

/* The next tokens of `left` to take together: tiles of at most `most`, of nearly the same size. */
static inline int64_t head_tile(int64_t left, int64_t most) {
    const int64_t tiles = (left + most - 1) / most;
    return (left + tiles - 1) / tiles;
}

#define HEAD_CASE(tokens, row_times, row) \
    case tokens: \
        for (int64_t r = row0; r < row1; r++) \
            row_times(row(w, r), w->cols, x, t, tokens, out + r - row0, ld); \
        break;
#define HEAD_CASES4(row_times, row) \
    HEAD_CASE(1, row_times, row) \
    HEAD_CASE(2, row_times, row) \
    HEAD_CASE(3, row_times, row) HEAD_CASE(4, row_times, row)
#define HEAD_CASES6(row_times, row) \
    HEAD_CASES4(row_times, row) HEAD_CASE(5, row_times, row) HEAD_CASE(6, row_times, row)

/* The body of a kernel with tiles of up to 4 or 6 tokens. row(w, r) is where a row begins, and
 * row_times(row, cols, x, first token, tokens, out, ld) multiplies it. */
#define HEAD_BY_TOKENS(most, row_times, row) \
    for (int64_t t = 0, count; t < n; t += count) { \
        count = head_tile(n - t, most); \
        switch (count) { HEAD_CASES##most(row_times, row) } \
    }

#endif
