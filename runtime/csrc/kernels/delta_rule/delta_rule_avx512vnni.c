/* The gated delta rule, for AVX-512 VNNI. */
#include "delta_rule.h"

void delta_rule_f32_avx512vnni(const tp_delta_rule *a) { delta_rule_body(a); }
