#ifndef TRITPACK_WORDS_NEON_H
#define TRITPACK_WORDS_NEON_H

#include <arm_neon.h>

#include "../common.h"

/* Four neighbours to a lane, as the instruction of dotprod does: sums_of_quads counts on it. */
TP_INLINE int32x4_t sdot(int32x4_t acc, int8x16_t a, int8x16_t b) {
    return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))), vpaddlq_s16(vmull_high_s8(a, b))));
}

#include "sdot.h"

#endif
