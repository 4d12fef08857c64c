/* Floats to the types of embeddings, heads and norms, for NEON. The compiler vectorises
 * the other types in encode_scalar.c. */
#include "encode_lanes.h"

void widen_f16_neon(const uint16_t *from, int64_t n, float *to) { widen_f16(from, n, to); }

unsigned encode_f16_neon(const float *x, int64_t n, void *out) { return encode_f16(x, n, out); }

unsigned encode_q6_k_neon(const float *x, int64_t n, void *out) { return encode_q6_k(x, n, out); }

unsigned encode_q4_k_neon(const float *x, int64_t n, void *out) { return encode_q4_k(x, n, out); }
