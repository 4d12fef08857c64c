/* The causal convolution of recurrent layers, for AVX2. */
#include "conv.h"

void conv_f32_avx2(const tp_conv *a) { conv_body(a); }
