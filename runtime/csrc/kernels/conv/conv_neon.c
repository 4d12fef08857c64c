/* The causal convolution of recurrent layers, for NEON. */
#include "conv.h"

void conv_f32_neon(const tp_conv *a) { conv_body(a); }
