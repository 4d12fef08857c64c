#ifndef TRITPACK_WORDS_NEON_H
#define TRITPACK_WORDS_NEON_H

#include <arm_neon.h>

#include "../common.h"

/* Two products of at most 3 * 128 fit int16. */
TP_INLINE int32x4_t sdot(int32x4_t acc, int8x16_t a, int8x16_t b) {
    return vpadalq_s16(acc, vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b));
}

#include "sdot.h"

#endif
