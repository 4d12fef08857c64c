#include "attention16.h"

void attention16_f32_simd128(const tp_attention *a) { attention_body(a); }
