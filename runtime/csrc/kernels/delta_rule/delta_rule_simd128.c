/* The gated delta rule, for WebAssembly's SIMD128. */
#include "delta_rule.h"

void delta_rule_f32_simd128(const tp_delta_rule *a) { delta_rule_body(a); }
