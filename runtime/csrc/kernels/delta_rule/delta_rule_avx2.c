/* The gated delta rule, for AVX2. */
#include "delta_rule.h"

void delta_rule_f32_avx2(const tp_delta_rule *a) { delta_rule_body(a); }
