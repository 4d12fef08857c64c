/* What NEON without dotprod has in its place. */
#ifndef TRITPACK_NEON_H
#define TRITPACK_NEON_H

#include <arm_neon.h>

#include "../common.h"

/* acc += a * b, four neighbours to a lane, as vdotq_s32. Two products of at most 3 * 128 are
 * added in int16. */
TP_INLINE int32x4_t neon_dot(int32x4_t acc, int8x16_t a, int8x16_t b) {
    return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))),
                                     vpaddlq_s16(vmull_high_s8(a, b))));
}

#endif
