#include "../common.h"

/* The limit of what multiplies int8: n rounds of 12 times 64 products of bytes u and s in registers, whatever the
 * instruction set. Gives one lane's sum, modulo 2^32. */
uint64_t dots_u8_scalar(const uint8_t *us /* (2) u, s */, int64_t n) {
    uint32_t sum = 0;
    const uint32_t step = (uint32_t)(4 * us[0] * (int8_t)us[1]);
    for (int64_t i = 0; i < n; i++) {
        sum += step;
        __asm__ volatile("" : "+r"(sum));
    }
    return sum;
}
