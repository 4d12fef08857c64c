/* The causal convolution of recurrent layers, for WebAssembly's SIMD128. */
#include "conv.h"

void conv_f32_simd128(const tp_conv *a) { conv_body(a); }
