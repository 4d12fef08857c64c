/* How fast int8 is multiplied, for NEON with i8mm. */
#define DOT vmmlaq_s32
#define PRODUCTS 8
#include "dots_arm.inc"

uint64_t dots_u8_i8mm(const uint8_t *us, int64_t n) { return dots(us, n); }
