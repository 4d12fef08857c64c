#ifndef TRITPACK_WORDS_DOTPROD_H
#define TRITPACK_WORDS_DOTPROD_H

#include <arm_neon.h>

#include "../common.h"

TP_INLINE int32x4_t sdot(int32x4_t acc, int8x16_t a, int8x16_t b) { return vdotq_s32(acc, a, b); }

#include "sdot.h"

#endif
