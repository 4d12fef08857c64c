/* Attention over floats, for WebAssembly's SIMD128. */
#include "attention.h"

void attention_f32_simd128(const tp_attention *a) { attention_body(a); }
