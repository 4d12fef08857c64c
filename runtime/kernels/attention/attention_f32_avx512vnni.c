#define CACHED float
#define LOAD lanes_load
#define LOAD_N lanes_load_n
#include "attention.h"

void attention_f32_avx512vnni(const tp_attention *a) { attention_body(a); }
