/* What the NEON heads of q8_0, q6_k and q4_k share. */
#include "../lanes16.h"
#include "../quants.h"
#include "../stream.h"

/* start + four sums: 16 codes, the even and the odd ones as int16, by their activations q[0 .. 7] and q[32 .. 39]. */
LANES_INLINE vf dot16(int16x8_t even, int16x8_t odd, const int16_t *q, int32x4_t start) {
    const int16x8_t a = vld1q_s16(q), b = vld1q_s16(q + 32);
    const int32x4_t low = vmlal_s16(vmull_s16(vget_low_s16(even), vget_low_s16(a)), vget_low_s16(odd), vget_low_s16(b));
    const int32x4_t high = vmlal_high_s16(vmull_high_s16(even, a), odd, b);
    return vcvtq_f32_s32(vaddq_s32(start, vpaddq_s32(low, high)));
}

/* The same for unsigned codes as they lie. */
LANES_INLINE vf dot16_u8(uint8x16_t codes, const int16_t *q, int32x4_t start) {
    const uint16x8_t pairs = vreinterpretq_u16_u8(codes);
    return dot16(vreinterpretq_s16_u16(vandq_u16(pairs, vdupq_n_u16(0xff))), vreinterpretq_s16_u16(vshrq_n_u16(pairs, 8)), q, start);
}
