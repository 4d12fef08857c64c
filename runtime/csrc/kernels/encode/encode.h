/* Floats to the plain types of embeddings, heads and norms, and back: elementwise, so that the
 * compiler vectorises it for each instruction set. */
#ifndef TRITPACK_ENCODE_H
#define TRITPACK_ENCODE_H

#include "../common.h"

/* The flags of an encoder by the bits that changed, and the highest magnitudes before and after,
 * as bits. */
TP_INLINE unsigned encode_flags(uint32_t changed, uint32_t before, uint32_t after) {
    return (changed ? TP_ENCODE_ROUNDED : 0u) | (after >= TP_INF_BITS ? TP_ENCODE_OVERFLOW : 0u) |
           (before >= TP_INF_BITS ? TP_ENCODE_NOT_FINITE : 0u);
}

TP_INLINE void widen_bf16(const uint16_t *restrict from, int64_t n, float *restrict to) {
    for (int64_t i = 0; i < n; i++) to[i] = tp_bf16_float(from[i]);
}

TP_INLINE unsigned encode_f32(const float *restrict x, int64_t n, float *restrict out) {
    int32_t most = 0; /* magnitudes order as integers do */
    for (int64_t i = 0; i < n; i++) {
        const int32_t magnitude = (int32_t)(tp_float_bits(x[i]) & 0x7fffffffu);
        most = magnitude > most ? magnitude : most;
        out[i] = x[i];
    }
    return encode_flags(0, (uint32_t)most, 0);
}

TP_INLINE unsigned encode_bf16(const float *restrict x, int64_t n, uint16_t *restrict out) {
    uint32_t changed = 0;
    int32_t before = 0, after = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t u = tp_float_bits(x[i]), r = u + 0x7fffu + (u >> 16 & 1u);
        const int32_t magnitude = (int32_t)(u & 0x7fffffffu), rounded = (int32_t)(r & 0x7fff0000u);
        changed |= u << 16; /* rounding changes something if, and only if, low bits are set */
        before = magnitude > before ? magnitude : before;
        after = rounded > after ? rounded : after;
        out[i] = (uint16_t)(r >> 16);
    }
    return encode_flags(changed, (uint32_t)before, (uint32_t)after);
}

#endif
