#include "attention16.h"

void attention16_f32_neon(const tp_attention *a) { attention_body(a); }
