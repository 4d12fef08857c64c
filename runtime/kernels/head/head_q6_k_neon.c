#include "quants_neon.h"

void head_q6_k_neon(const tp_tensor *w, const tp_head_acts *x, int64_t n, int64_t row0, int64_t row1, float *out, int64_t ld) {
    assert(w->cols % 256 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    const uint8x16_t nibble = vdupq_n_u8(15), two = vdupq_n_u8(3);
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = row0; r < row1; r++) {
            const uint8_t *block = q6_k_row(w, r);
            const int16_t *q = x->q + t * x->padded;
            const int32_t *bias = x->bias + t * (x->padded / 4);
            lanes acc = lanes_splat(0.0f);
            for (int64_t b = 0; b < w->cols / 256; b++, block += Q6_K_BYTES) {
                stream_block_ahead(block, Q6_K_BYTES);
                const float d = tp_f16_float(tp_load_u16(block + Q6_K_D)) * x->step[t * x->blocks + b];
                for (int h = 0; h < 2; h++, q += 128, bias += 32) {
                    uint8x16_t high[2] = {vld1q_u8(block + Q6_K_QH + 32 * h), vld1q_u8(block + Q6_K_QH + 32 * h + 16)};
#pragma GCC unroll 8
                    for (int k = 0; k < 8; k++) {       /* 16 elements each, with a scale of their own */
                        const uint8x16_t low = vld1q_u8(block + 64 * h + k % 4 * 16);
                        const uint8x16_t code = vorrq_u8(k < 4 ? vandq_u8(low, nibble) : vshrq_n_u8(low, 4), vshlq_n_u8(vandq_u8(high[k % 2], two), 4));
                        const float f = d * (float)(int8_t)block[Q6_K_SCALES + 8 * h + k];
                        acc.v[k % 4] += dot16_u8(code, q + k / 4 * 64 + k % 4 * 8, vld1q_s32(bias + 4 * k)) * vdupq_n_f32(f);
                        high[k % 2] = vshrq_n_u8(high[k % 2], 2);
                    }
                }
            }
            out[t * ld + r - row0] = lanes_tree(acc);
        }
}
