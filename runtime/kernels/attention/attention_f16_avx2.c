#define CACHED uint16_t
#define LOAD lanes_load_f16
#define LOAD_N lanes_load_f16_n
#include "attention.h"

void attention_f16_avx2(const tp_attention *a) { attention_body(a); }
