/* Floats to the types of embeddings, heads and norms in plain C: the specification. */
#include "../simd_f32/one_lane.h"
#include "encode_blocks.h"

void widen_f16_scalar(const uint16_t *from, int64_t n, float *to) {
    for (int64_t i = 0; i < n; i++) to[i] = tp_f16_float(from[i]);
}

void widen_bf16_scalar(const uint16_t *from, int64_t n, float *to) { widen_bf16(from, n, to); }

unsigned encode_f32_scalar(const float *x, int64_t n, void *out) { return encode_f32(x, n, out); }

unsigned encode_f16_scalar(const float *x, int64_t n, void *out) {
    uint16_t *to = out;
    uint32_t changed = 0, before = 0, after = 0;
    for (int64_t i = 0; i < n; i++) {
        to[i] = tp_float_f16(x[i]);
        const uint32_t was = tp_float_bits(x[i]), is = tp_float_bits(tp_f16_float(to[i]));
        changed |= was ^ is;
        before = (was & 0x7fffffffu) > before ? was & 0x7fffffffu : before;
        after = (is & 0x7fffffffu) > after ? is & 0x7fffffffu : after;
    }
    return encode_flags(changed, before, after);
}

unsigned encode_bf16_scalar(const float *x, int64_t n, void *out) { return encode_bf16(x, n, out); }

unsigned encode_q8_0_scalar(const float *x, int64_t n, void *out) { return encode_q8_0(x, n, out); }

unsigned encode_q6_k_scalar(const float *x, int64_t n, void *out) { return encode_q6_k(x, n, out); }

unsigned encode_q4_k_scalar(const float *x, int64_t n, void *out) { return encode_q4_k(x, n, out); }
