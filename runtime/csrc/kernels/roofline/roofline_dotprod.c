/* How fast int8 is multiplied, for NEON with dotprod. */
#define DOT vdotq_s32
#define PRODUCTS 4
#include "dots_arm.inc"

uint64_t dots_u8_dotprod(const uint8_t *us, int64_t n) { return dots(us, n); }
