/* The output head of q6_k in words of 128 bits, for NEON and WebAssembly. */
#ifndef TRITPACK_LM_HEAD_Q6_K_128_H
#define TRITPACK_LM_HEAD_Q6_K_128_H

#include "lm_head_quants_128.h"

TP_INLINE void lm_head_q6_k(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                            int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = row0; r < row1; r++) {
            const uint8_t *block = q6_k_row(w, r);
            const int16_t *q = x->q + t * x->padded;
            const int32_t *bias = x->bias + t * (x->padded / 4);
            lanes acc = lanes_splat(0.0f);
            for (int64_t b = 0; b < w->cols / 256; b++, block += Q6_K_BYTES) {
                stream_block_ahead(block, Q6_K_BYTES);
                const float d =
                    tp_f16_float(tp_load_u16(block + Q6_K_D)) * x->step[t * x->blocks + b];
                for (int h = 0; h < 2; h++, q += 128, bias += 32) {
                    bytes high[2] = {bytes_load(block + Q6_K_QH + 32 * h),
                                     bytes_load(block + Q6_K_QH + 32 * h + 16)};
#pragma GCC unroll 8
                    for (int k = 0; k < 8; k++) { /* 16 elements each, with a scale of their own */
                        const bytes low = bytes_load(block + 64 * h + k % 4 * 16);
                        const bytes code = (k < 4 ? low & 15 : low >> 4) | (high[k % 2] & 3) << 4;
                        const float f = d * (float)(int8_t)block[Q6_K_SCALES + 8 * h + k];
                        acc.v[k % 4] +=
                            dot16_u8(code, q + k / 4 * 64 + k % 4 * 8, vi_load_i32(bias + 4 * k)) *
                            vf_splat(f);
                        high[k % 2] >>= 2;
                    }
                }
            }
            out[t * ld + r - row0] = lanes_tree(acc);
        }
}

#endif
