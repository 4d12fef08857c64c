/* What NEON without dotprod has in its place, and a load of both. */
#ifndef TRITPACK_NEON_H
#define TRITPACK_NEON_H

#include <arm_neon.h>

#include "../common.h"
#include "../row_geometry.h"

/* acc += a * b, four neighbours to a lane, as vdotq_s32. */
TP_INLINE int32x4_t neon_dot(int32x4_t acc, int8x16_t a, int8x16_t b) {
    return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))),
                                     vpaddlq_s16(vmull_high_s8(a, b))));
}

/* Two words of activations, `at` bytes from q: a constant. gcc 12 moves the loads of a pair apart,
 * and then needs one for each. */
typedef struct acts_pair {
    int8x16_t v[2];
} acts_pair;

TP_INLINE acts_pair acts_load_pair(const int8_t *q, const int at) {
    acts_pair a;
#if defined(__GNUC__) && !defined(__clang__)
    if (__builtin_constant_p(at)) {
        __asm__("ldp %q0, %q1, [%2, %3]"
                : "=w"(a.v[0]), "=w"(a.v[1])
                : "r"(q), "i"(at), "m"(*(const int8_t(*)[MOST_FIELDS * LINE]) q));
        return a;
    }
#endif
    a.v[0] = vld1q_s8(q + at);
    a.v[1] = vld1q_s8(q + at + 16);
    return a;
}

#endif
