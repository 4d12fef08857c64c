/* The Walsh-Hadamard transform. Butterflies of less than sixteen values apart stay in a word, or
 * between words; of the others two go together, which halves the way through the cache. */
#ifndef TRITPACK_HADAMARD_H
#define TRITPACK_HADAMARD_H

#include "../simd_f32/lanes16.h"

/* Sums and differences of lanes `width` apart: a - b is b's lane negated and a's lane added. */
TP_INLINE lanes near_butterflies(lanes a, const int width) {
#if LANES_PARTS > 1
    if (width >= LANES_NATIVE) {
        const int apart = width / LANES_NATIVE;
        lanes out;
#pragma GCC unroll 4
        for (int i = 0; i < LANES_PARTS; i++)
            out.v[i] = i & apart ? a.v[i - apart] - a.v[i] : a.v[i] + a.v[i + apart];
        return out;
    }
#endif
    static const uint32_t numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vu second;
    memcpy(&second, numbers, sizeof second);
    second = (second & (uint32_t)width) * (0x80000000u / (uint32_t)width); /* the sign bit */
    return LANES_EACH(vf_swap(a.v[i], width) + (vf)((vu)a.v[i] ^ second));
}

TP_INLINE lanes near_stages(lanes a, int64_t block) {
    a = near_butterflies(a, 1);
    if (block > 2) a = near_butterflies(a, 2);
    if (block > 4) a = near_butterflies(a, 4);
    if (block > 8) a = near_butterflies(a, 8);
    return a;
}

TP_INLINE void one_stage(float *y, int64_t block, int64_t width) {
    for (int64_t at = 0; at < block; at += 2 * width)
        for (int64_t i = at; i < at + width; i += 16) {
            const lanes a = lanes_load(y + i), b = lanes_load(y + i + width);
            lanes_store(y + i, lanes_add(a, b));
            lanes_store(y + i + width, lanes_sub(a, b));
        }
}

TP_INLINE void two_stages(float *y, int64_t block, int64_t width) {
    for (int64_t at = 0; at < block; at += 4 * width)
        for (int64_t i = at; i < at + width; i += 16) {
            float *const p = y + i;
            const lanes a = lanes_load(p), b = lanes_load(p + width);
            const lanes c = lanes_load(p + 2 * width), d = lanes_load(p + 3 * width);
            const lanes ab = lanes_add(a, b), cd = lanes_add(c, d);
            const lanes a_b = lanes_sub(a, b), c_d = lanes_sub(c, d);
            lanes_store(p, lanes_add(ab, cd));
            lanes_store(p + width, lanes_add(a_b, c_d));
            lanes_store(p + 2 * width, lanes_sub(ab, cd));
            lanes_store(p + 3 * width, lanes_sub(a_b, c_d));
        }
}

TP_INLINE void far_stages(float *y, int64_t block) {
    int64_t width = 16;
    for (; 4 * width <= block; width *= 4) two_stages(y, block, width);
    if (width < block) one_stage(y, block, width);
}

TP_INLINE lanes some_lanes(const float *p, int64_t n) {
    return n < 16 ? lanes_load_n(p, n) : lanes_load(p);
}
TP_INLINE void store_lanes(float *p, lanes a, int64_t n) {
    if (n < 16) lanes_store_n(p, a, n);
    else lanes_store(p, a);
}

TP_INLINE void hadamard_body(const float *x, const float *before, const float *after, int64_t cols,
                             int64_t block, float *y) {
    const lanes scale = lanes_splat((float)(1.0 / __builtin_sqrt((double)block)));
    for (int64_t i = 0; i < cols; i += 16) { /* short blocks may end within sixteen values */
        lanes a = some_lanes(x + i, cols - i);
        if (before) a = lanes_mul(a, some_lanes(before + i, cols - i));
        store_lanes(y + i, near_stages(a, block), cols - i);
    }
    for (int64_t i = 0; block > 16 && i < cols; i += block) far_stages(y + i, block);
    for (int64_t i = 0; i < cols; i += 16) {
        lanes a = lanes_mul(some_lanes(y + i, cols - i), scale);
        if (after) a = lanes_mul(a, some_lanes(after + i, cols - i));
        store_lanes(y + i, a, cols - i);
    }
}

#endif
