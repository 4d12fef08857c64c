/* Floats to Q8_0, Q6_K and Q4_K, the bytes of formats/k_quants.py. What tries scales is in
 * encode_trials.h; here the blocks are made of them. */
#ifndef TRITPACK_ENCODE_BLOCKS_H
#define TRITPACK_ENCODE_BLOCKS_H

#include "../quants.h"
#include "encode.h"
#include "encode_trials.h"

#define ENCODE_LIMIT 4294967296.0f /* 2^32: magnitudes that no type of blocks holds */

/* Whether values are finite, and below the limit. */
TP_INLINE unsigned blocks_flags(const float *restrict x, int64_t n) {
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t magnitude = (int32_t)(tp_float_bits(x[i]) & 0x7fffffffu);
        most = magnitude > most ? magnitude : most;
    }
    return most >= (int32_t)TP_INF_BITS                   ? TP_ENCODE_NOT_FINITE
           : most >= (int32_t)tp_float_bits(ENCODE_LIMIT) ? TP_ENCODE_OVERFLOW
                                                          : 0;
}

/* Writes a float as f16. Returns TP_ENCODE_OVERFLOW if it became infinite. */
TP_INLINE unsigned put_half(float value, uint8_t *to, float *half) {
    const uint16_t bits = tp_float_f16(value);
    memcpy(to, &bits, 2);
    *half = tp_f16_float(bits);
    return (bits & 0x7fffu) >= 0x7c00u ? TP_ENCODE_OVERFLOW : 0;
}

/* n whole numbers clip(round((x + shift) / step), low, high), a multiple of 16. */
TP_INLINE void codes_on_grid(const float *x, int n, float shift, float step, float low, float high,
                             float *out) {
    for (int i = 0; i < n; i += LANES_NATIVE) {
        const vf v = (vf_load(x + i) + vf_splat(shift)) / vf_splat(step);
        vf_store(out + i, vf_whole(vf_min(vf_max(v, vf_splat(low)), vf_splat(high))));
    }
}

/* ---- Q8_0: 32 values, halves rounded away from zero ---- */

TP_INLINE unsigned encode_q8_0(const float *restrict x, int64_t n, uint8_t *restrict out) {
    unsigned flags = blocks_flags(x, n);
    for (int64_t b = 0; b < n && flags < TP_ENCODE_OVERFLOW; b += 32, x += 32, out += Q8_0_BYTES) {
        int32_t most = 0; /* magnitudes order as integers do */
        float half;
        for (int i = 0; i < 32; i++) {
            const int32_t magnitude = (int32_t)(tp_float_bits(x[i]) & 0x7fffffffu);
            most = magnitude > most ? magnitude : most;
        }
        const float d = tp_bits_float((uint32_t)most) / 127.0f, inverse = 1.0f / d;
        const float by = tp_float_bits(inverse) < TP_INF_BITS ? inverse : 0.0f;
        flags |= put_half(d, out, &half);
        for (int i = 0; i < 32; i++) {
            const float v = x[i] * by;
            const int32_t toward_zero = (int32_t)v;
            const float rest = v - (float)toward_zero;
            out[2 + i] = (uint8_t)(toward_zero + (rest >= 0.5f) - (rest <= -0.5f));
        }
    }
    return flags;
}

/* ---- Q6_K: 16 sub-blocks of 16 ---- */

TP_INLINE void q6_k_put_codes(const float *restrict codes /* (256), -32 .. 31 */,
                              uint8_t *restrict out) {
    uint8_t q[256];
    for (int i = 0; i < 256; i++) q[i] = (uint8_t)((int32_t)codes[i] + 32);
    for (int half = 0; half < 2; half++) {
        const uint8_t *const r = q + 128 * half;
        for (int i = 0; i < 64; i++)
            out[64 * half + i] = (uint8_t)((r[i] & 15) | (r[64 + i] & 15) << 4);
        for (int i = 0; i < 32; i++)
            out[Q6_K_QH + 32 * half + i] = (uint8_t)(r[i] >> 4 | r[32 + i] >> 4 << 2 |
                                                     r[64 + i] >> 4 << 4 | r[96 + i] >> 4 << 6);
    }
}

TP_INLINE unsigned q6_k_block(const float *x /* (256) */, uint8_t *out /* (210) */) {
    float ideal[16], codes[256], d, widest;
    q6_k_ideal(x, ideal);
    widest = ideal[0];
    for (int s = 1; s < 16; s++)
        if ((tp_float_bits(ideal[s]) & 0x7fffffffu) > (tp_float_bits(widest) & 0x7fffffffu))
            widest = ideal[s];
    if (put_half(widest / -128.0f, out + Q6_K_D, &d)) return TP_ENCODE_OVERFLOW;
    for (int s = 0; s < 16; s++) {
        float scale = 0;
        if (d != 0) {
            const float v = ideal[s] / d;
            scale = whole(v < -128.0f ? -128.0f : v > 127.0f ? 127.0f : v);
        }
        out[Q6_K_SCALES + s] = (uint8_t)(int8_t)scale;
        const float step = d * scale;
        if (step != 0) codes_on_grid(x + 16 * s, 16, 0.0f, step, -32.0f, 31.0f, codes + 16 * s);
        else memset(codes + 16 * s, 0, 16 * sizeof *codes);
    }
    q6_k_put_codes(codes, out);
    return 0;
}

TP_INLINE unsigned encode_q6_k(const float *x, int64_t n, uint8_t *out) {
    unsigned flags = blocks_flags(x, n);
    for (int64_t b = 0; b < n && flags < TP_ENCODE_OVERFLOW; b += 256)
        flags |= q6_k_block(x + b, out + b / 256 * Q6_K_BYTES);
    return flags;
}

/* ---- Q4_K: 8 sub-blocks of 32 ---- */

/* Writes the step of a grid as f16, and rounds values to whole steps of it, 0 to 63. */
TP_INLINE unsigned q4_k_on_grid(const float *values /* (8) */, uint8_t *half, uint8_t *small,
                                float *steps /* (8) */) {
    float highest = values[0], d;
    for (int s = 1; s < 8; s++) highest = values[s] >= highest ? values[s] : highest;
    if (put_half(highest / 63.0f, half, &d)) return TP_ENCODE_OVERFLOW;
    for (int s = 0; s < 8; s++) {
        const float v = d > 0 ? values[s] / d : 0.0f, number = whole(v > 63.0f ? 63.0f : v);
        small[s] = (uint8_t)number;
        steps[s] = d * number;
    }
    return 0;
}

TP_INLINE unsigned q4_k_block(const float *x /* (256) */, uint8_t *out /* (144) */) {
    float scale[8], offset[8], stride[8], shift[8], codes[256];
    uint8_t scales[8], offsets[8];
    q4_k_ideal(x, scale, offset);
    if (q4_k_on_grid(scale, out, scales, stride) ||
        q4_k_on_grid(offset, out + Q4_K_DMIN, offsets, shift))
        return TP_ENCODE_OVERFLOW;
    for (int s = 0; s < 4; s++) {
        out[Q4_K_SCALES + s] = (uint8_t)(scales[s] | scales[4 + s] >> 4 << 6);
        out[Q4_K_SCALES + 4 + s] = (uint8_t)(offsets[s] | offsets[4 + s] >> 4 << 6);
        out[Q4_K_SCALES + 8 + s] = (uint8_t)((scales[4 + s] & 15) | (offsets[4 + s] & 15) << 4);
    }
    for (int s = 0; s < 8; s++) {
        if (stride[s] > 0)
            codes_on_grid(x + 32 * s, 32, shift[s], stride[s], 0.0f, 15.0f, codes + 32 * s);
        else memset(codes + 32 * s, 0, 32 * sizeof *codes);
    }
    for (int pair = 0; pair < 4; pair++)
        for (int e = 0; e < 32; e++)
            out[Q4_K_CODES + 32 * pair + e] =
                (uint8_t)((int32_t)codes[64 * pair + e] | (int32_t)codes[64 * pair + 32 + e] << 4);
    return 0;
}

TP_INLINE unsigned encode_q4_k(const float *x, int64_t n, uint8_t *out) {
    unsigned flags = blocks_flags(x, n);
    for (int64_t b = 0; b < n && flags < TP_ENCODE_OVERFLOW; b += 256)
        flags |= q4_k_block(x + b, out + b / 256 * Q4_K_BYTES);
    return flags;
}

#endif
