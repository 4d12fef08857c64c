/* dots_f32: how fast floats are multiplied and added, which no kernel fuses. Included by the files
 * of instruction sets. */
#ifndef TRITPACK_DOTS_F32_H
#define TRITPACK_DOTS_F32_H

#include "../simd_f32/lanes16.h"

#define EACH12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define ZERO(i) vf a##i = vf_splat(0.0f);
#define STEP(i) \
    KEEP(u); \
    a##i = a##i + u * s;
#define SAME(i) same &= is_all(a##i, a0[0]);

/* Keeps the product in the loop, where the compiler would not compute it again. */
#if TP_X86
#define KEEP(a) __asm__ volatile("" : "+x"(a))
#elif TP_ARM
#define KEEP(a) __asm__ volatile("" : "+w"(a))
#else
#define KEEP(a) __asm__ volatile("" : "+r"(a))
#endif

TP_INLINE int is_all(vf a, float first) {
    int same = 1;
    for (int i = 0; i < LANES_NATIVE; i++) same &= a[i] == first;
    return same;
}

/* Twelve words of sums, none of which waits for another; words of fewer lanes take more turns. */
TP_INLINE uint64_t dots_f32(const uint8_t *us, int64_t n) {
    vf u = vf_splat((float)us[0]);
    const vf s = vf_splat((float)(int8_t)us[1]);
    int same = 1;
    EACH12(ZERO)
    for (int64_t i = 0; i < n * LANES_PARTS; i++) {
        EACH12(STEP)
    }
    EACH12(SAME)
    return same ? (uint32_t)((int32_t)a0[0] / LANES_PARTS) : UINT64_MAX;
}

#endif
