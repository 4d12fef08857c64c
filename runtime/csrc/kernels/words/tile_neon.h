/* What matmul_128.h multiplies with on ARM; the including file defines sdot, which adds the products of 16 bytes to four lanes. */
#include <arm_neon.h>

#include "../common.h"

#define WORD int32x4_t
TP_INLINE WORD word_zero(void) { return vdupq_n_s32(0); }
TP_INLINE WORD word_load(const void *p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }
TP_INLINE void word_store(int32_t *p, WORD v) { vst1q_s32(p, v); }
TP_INLINE WORD word_four(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return vdupq_n_s32(four);
}
TP_INLINE WORD word_dot(WORD acc, WORD codes, WORD q) { return sdot(acc, vreinterpretq_s8_s32(codes), vreinterpretq_s8_s32(q)); }
