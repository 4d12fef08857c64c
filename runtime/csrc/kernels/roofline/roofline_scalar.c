/* How fast memory is read and int8 and floats are multiplied, in plain C. */
#include "../common.h"

/* The limit of what reads memory: all bytes, and nothing done with them. Gives the exclusive or
 * of their words. */
uint64_t read_u8_scalar(const uint8_t *data, int64_t n) {
    uint64_t lanes[8] = {0};
    assert(n % 256 == 0);
    for (int64_t i = 0; i < n; i += 64)
        for (int j = 0; j < 8; j++) {
            uint64_t word;
            memcpy(&word, data + i + 8 * j, 8);
            lanes[j] ^= word;
        }
    return (lanes[0] ^ lanes[1]) ^ (lanes[2] ^ lanes[3]) ^ (lanes[4] ^ lanes[5]) ^
           (lanes[6] ^ lanes[7]);
}

/* The limit of what multiplies int8: n rounds of 12 times 64 products of bytes u and s in
 * registers, whatever the instruction set. Gives one lane's sum, modulo 2^32. */
uint64_t dots_u8_scalar(const uint8_t *us /* (2) u, s */, int64_t n) {
    uint32_t sum = 0;
    const uint32_t step = (uint32_t)(4 * us[0] * (int8_t)us[1]);
    for (int64_t i = 0; i < n; i++) {
        sum += step;
        __asm__ volatile("" : "+r"(sum));
    }
    return sum;
}

/* The limit of what multiplies floats without fusing: n rounds of 12 times 16 products u * s in
 * registers, each rounded and added. Gives one lane's sum, an integer below 2^22, as floats hold
 * it. */
uint64_t dots_f32_scalar(const uint8_t *us /* (2) u, s */, int64_t n) {
    float sum = 0.0f;
    const float step = (float)us[0] * (float)(int8_t)us[1];
    for (int64_t i = 0; i < n; i++) {
        sum += step;
        __asm__ volatile("" : "+r"(sum));
    }
    return (uint32_t)(int32_t)sum;
}
