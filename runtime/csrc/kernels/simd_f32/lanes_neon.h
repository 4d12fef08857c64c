/* The lanes of lanes16.h in four words of NEON. */
#ifndef TRITPACK_LANES_NEON_H
#define TRITPACK_LANES_NEON_H

#include <arm_neon.h>

#include "../common.h"

#define LANES_NATIVE 4
#define TREES 4
typedef float32x4_t vf;
typedef uint32_t vu __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32x4_t vmask;
typedef struct lanes {
    vf v[4];
} lanes;
typedef int32x4x2_t vdot;
typedef struct dots {
    vdot v[4];
} dots; /* products of a lane side by side, its pairs added last */

TP_INLINE vf vf_splat(float x) { return vdupq_n_f32(x); }
/* A float16 in every element, as a float. */
TP_INLINE vf vf_splat_f16(const uint8_t *p) { return vf_splat(tp_f16_float(tp_load_u16(p))); }
TP_INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
TP_INLINE void vf_store(float *p, vf a) { vst1q_f32(p, a); }
TP_INLINE vf vf_load_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
TP_INLINE void vf_store_f16(uint16_t *p, vf a) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
}
TP_INLINE vf vf_load_bf16(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
TP_INLINE vmask vf_less(vf a, vf b) { return vcltq_f32(a, b); }
TP_INLINE vf vf_pick(vmask mask, vf yes, vf no) { return vbslq_f32(mask, yes, no); }
TP_INLINE vf vf_max(vf a, vf b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
} /* vmaxq keeps another NaN than the other machines */
TP_INLINE vf vf_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
TP_INLINE float vf_highest(vf a) { return vmaxvq_f32(a); }
TP_INLINE vi vi_max(vi a, vi b) { return (vi)vmaxq_s32((int32x4_t)a, (int32x4_t)b); }
TP_INLINE vi vi_load_u8(const uint8_t *p) {
    uint32_t four;
    memcpy(&four, p, 4);
    return (vi)vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}
TP_INLINE void vi_store_i8(int8_t *p, const vi v[4]) {
    const int16x8_t a = vcombine_s16(vqmovn_s32((int32x4_t)v[0]), vqmovn_s32((int32x4_t)v[1]));
    const int16x8_t b = vcombine_s16(vqmovn_s32((int32x4_t)v[2]), vqmovn_s32((int32x4_t)v[3]));
    vst1q_s8(p, vcombine_s8(vqmovn_s16(a), vqmovn_s16(b)));
}

TP_INLINE void vi_store_i16(int16_t *p, const vi v[4]) {
    vst1q_s16(p, vcombine_s16(vqmovn_s32((int32x4_t)v[0]), vqmovn_s32((int32x4_t)v[1])));
    vst1q_s16(p + 8, vcombine_s16(vqmovn_s32((int32x4_t)v[2]), vqmovn_s32((int32x4_t)v[3])));
}
TP_INLINE vf vi_float(vi a) { return vcvtq_f32_s32((int32x4_t)a); }
TP_INLINE vdot vi_dot(vdot acc, vi a, vi b) {
    acc.val[0] = vmlal_s16(acc.val[0], vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    acc.val[1] = vmlal_high_s16(acc.val[1], (int16x8_t)a, (int16x8_t)b);
    return acc;
}
TP_INLINE vi vi_dots(vdot acc) { return (vi)vpaddq_s32(acc.val[0], acc.val[1]); }

TP_INLINE vf vf_quarter(lanes a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
TP_INLINE float lanes_tree(lanes a) {
    const vf t4 = vf_quarter(a);
    return (t4[0] + t4[2]) + (t4[1] + t4[3]);
}

TP_INLINE void lanes_trees(const lanes a[TREES], float *out) {
    const vf p = vf_quarter(a[0]), q = vf_quarter(a[1]), r = vf_quarter(a[2]), s = vf_quarter(a[3]);
    const vf pq = vcombine_f32(vget_low_f32(p), vget_low_f32(q)) +
                  vcombine_f32(vget_high_f32(p), vget_high_f32(q));
    const vf rs = vcombine_f32(vget_low_f32(r), vget_low_f32(s)) +
                  vcombine_f32(vget_high_f32(r), vget_high_f32(s));
    vst1q_f32(out, vpaddq_f32(pq, rs));
}

/* A table of four floats is sixteen bytes, and a code names four of them. */
TP_INLINE vf vf_table(const float entries[4]) { return vld1q_f32(entries); }
TP_INLINE vf vf_of_table(vf table, vi codes, const int shift) {
    const vu bytes = ((vu)(codes >> shift) & 3u) * 0x04040404u + 0x03020100u;
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(table), (uint8x16_t)bytes));
}

/* As in AVX-512. */
TP_INLINE vf vf_swap(vf a, const int width) {
    return width == 1 ? vrev64q_f32(a) : vextq_f32(a, a, 2);
}

#endif
