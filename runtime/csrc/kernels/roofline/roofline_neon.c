/* How fast memory is read, for NEON. */
#include <arm_neon.h>

#include "../common.h"

uint64_t read_u8_neon(const uint8_t *data, int64_t n) {
    uint8x16_t a = vdupq_n_u8(0), b = a, c = a, d = a;
    assert(n % 256 == 0);
    for (int64_t i = 0; i < n; i += 64) {
        a = veorq_u8(a, vld1q_u8(data + i));
        b = veorq_u8(b, vld1q_u8(data + i + 16));
        c = veorq_u8(c, vld1q_u8(data + i + 32));
        d = veorq_u8(d, vld1q_u8(data + i + 48));
    }
    const uint64x2_t w = vreinterpretq_u64_u8(veorq_u8(veorq_u8(a, b), veorq_u8(c, d)));
    return vgetq_lane_u64(w, 0) ^ vgetq_lane_u64(w, 1);
}
