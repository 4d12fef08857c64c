/* The output head of q6_k, for WebAssembly's SIMD128. */
#include "lm_head_q6_k_128.h"

void lm_head_q6_k_simd128(const tp_tensor *w, const tp_lm_head_acts *x, int64_t n, int64_t row0,
                          int64_t row1, float *out, int64_t ld) {
    lm_head_q6_k(w, x, n, row0, row1, out, ld);
}
