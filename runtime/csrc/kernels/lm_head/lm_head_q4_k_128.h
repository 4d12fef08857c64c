/* The output head of q4_k in words of 128 bits, for NEON and WebAssembly. */
#ifndef TRITPACK_LM_HEAD_Q4_K_128_H
#define TRITPACK_LM_HEAD_Q4_K_128_H

#include "lm_head_quants_128.h"

TP_INLINE void lm_head_q4_k(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                            int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = row0; r < row1; r++) {
            const uint8_t *block = q4_k_row(w, r);
            const int16_t *q = x->q + t * x->padded;
            const int32_t *bias = x->bias + t * (x->padded / 4);
            lanes acc = lanes_splat(0.0f);
            for (int64_t b = 0; b < w->cols / 256; b++, block += Q4_K_BYTES) {
                stream_block_ahead(block, Q4_K_BYTES);
                const float step = x->step[t * x->blocks + b];
                const float d = tp_f16_float(tp_load_u16(block)) * step,
                            dmin = tp_f16_float(tp_load_u16(block + Q4_K_DMIN)) * step;
                uint8_t scales[8], offsets[8];
                q4_k_scales(block, scales, offsets);
                for (int j = 0; j < 4; j++, q += 64, bias += 16)
#pragma GCC unroll 4
                    for (int i = 0; i < 4;
                         i++) { /* 16 elements: low nibbles of 32 bytes, then high */
                        const bytes both = bytes_load(block + Q4_K_CODES + 32 * j + i % 2 * 16);
                        const bytes code = i < 2 ? both & 15 : both >> 4;
                        const float f = d * (float)scales[2 * j + i / 2],
                                    g = dmin * (float)offsets[2 * j + i / 2] * 0.03125f;
                        acc.v[i] += dot16_u8(code, q + 8 * i, (vi){0}) * vf_splat(f);
                        acc.v[i] += vi_float(vi_load_i32(bias + 4 * i)) * vf_splat(g);
                    }
            }
            out[t * ld + r - row0] = lanes_tree(acc);
        }
}

#endif
