/* Floats to the types of embeddings, heads and norms, for AVX2. */
#include "encode_lanes.h"

void widen_f16_avx2(const uint16_t *from, int64_t n, float *to) { widen_f16(from, n, to); }

void widen_bf16_avx2(const uint16_t *from, int64_t n, float *to) { widen_bf16(from, n, to); }

unsigned encode_f32_avx2(const float *x, int64_t n, void *out) { return encode_f32(x, n, out); }

unsigned encode_f16_avx2(const float *x, int64_t n, void *out) { return encode_f16(x, n, out); }

unsigned encode_bf16_avx2(const float *x, int64_t n, void *out) { return encode_bf16(x, n, out); }

unsigned encode_q8_0_avx2(const float *x, int64_t n, void *out) { return encode_q8_0(x, n, out); }

unsigned encode_q6_k_avx2(const float *x, int64_t n, void *out) { return encode_q6_k(x, n, out); }

unsigned encode_q4_k_avx2(const float *x, int64_t n, void *out) { return encode_q4_k(x, n, out); }
