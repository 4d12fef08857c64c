/* The output head of q8_0 in words of 128 bits, for NEON and WebAssembly. */
#ifndef TRITPACK_LM_HEAD_Q8_0_128_H
#define TRITPACK_LM_HEAD_Q8_0_128_H

#include "lm_head_quants_128.h"

/* Lanes of half a block of 32, 4 each, from part on. */
TP_INLINE void block_times(const uint8_t *block, const int16_t *q, float step, vf *part) {
    const vf d = vf_splat(tp_f16_float(tp_load_u16(block)) * step);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const shorts both = (shorts)bytes_load(block + 2 + 16 * i);
        part[i] += dot16(both << 8 >> 8, both >> 8, q + 8 * i, (vi){0}) * d;
    }
}

TP_INLINE void lm_head_q8_0(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                            int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 32 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = row0; r < row1; r++) {
            const uint8_t *block = q8_0_row(w, r);
            const int16_t *q = x->q + t * x->padded;
            lanes acc = lanes_splat(0.0f);
            for (int64_t at = 0; at < w->cols; at += 64, block += 2 * Q8_0_BYTES) {
                const float step = x->step[t * x->blocks + at / 256];
                stream_block_ahead(block, 2 * Q8_0_BYTES);
                block_times(block, q + at, step, acc.v);
                if (at + 32 < w->cols)
                    block_times(block + Q8_0_BYTES, q + at + 16, step, acc.v + 2);
            }
            out[t * ld + r - row0] = lanes_tree(acc);
        }
}

#endif
