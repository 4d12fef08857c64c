/* The causal convolution of recurrent layers, for AVX-512 VNNI. */
#include "conv.h"

void conv_f32_avx512vnni(const tp_conv *a) { conv_body(a); }
