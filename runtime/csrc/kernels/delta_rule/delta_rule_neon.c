/* The gated delta rule, for NEON. */
#include "delta_rule.h"

void delta_rule_f32_neon(const tp_delta_rule *a) { delta_rule_body(a); }
