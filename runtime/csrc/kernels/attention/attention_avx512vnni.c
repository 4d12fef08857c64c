/* Attention over floats, for AVX-512 VNNI. */
#include "attention.h"

void attention_f32_avx512vnni(const tp_attention *a) { attention_body(a); }
