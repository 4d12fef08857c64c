/* Attention over floats, for NEON. */
#include "attention.h"

void attention_f32_neon(const tp_attention *a) { attention_body(a); }
