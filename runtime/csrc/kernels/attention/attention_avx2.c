/* Attention over floats, for AVX2. */
#include "attention.h"

void attention_f32_avx2(const tp_attention *a) { attention_body(a); }
