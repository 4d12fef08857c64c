/* The lanes of lanes16.h in four words of WebAssembly's SIMD128. */
#ifndef TRITPACK_LANES_SIMD128_H
#define TRITPACK_LANES_SIMD128_H

#include <wasm_simd128.h>

#include "../common.h"

#define LANES_NATIVE 4
#define TREES 4
typedef float vf __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef vi vmask;
typedef struct lanes {
    vf v[4];
} lanes;
typedef vi vdot;
typedef struct dots {
    vdot v[4];
} dots;

TP_INLINE vf vf_splat(float x) { return (vf)wasm_f32x4_splat(x); }
/* A float16 in every element, as a float. */
TP_INLINE vf vf_splat_f16(const uint8_t *p) { return vf_splat(tp_f16_float(tp_load_u16(p))); }
TP_INLINE vf vf_load(const float *p) { return (vf)wasm_v128_load(p); }
TP_INLINE void vf_store(float *p, vf a) { wasm_v128_store(p, (v128_t)a); }
TP_INLINE vmask vf_less(vf a, vf b) { return a < b; }
TP_INLINE vf vf_pick(vmask mask, vf yes, vf no) {
    return (vf)wasm_v128_bitselect((v128_t)yes, (v128_t)no, (v128_t)mask);
}
TP_INLINE vf vf_max(vf a, vf b) {
    return (vf)wasm_f32x4_pmax((v128_t)b, (v128_t)a);
} /* of two, b if one is NaN: as x86 does */
TP_INLINE float vf_highest(vf a) {
    const vf m = vf_max(a, __builtin_shufflevector(a, a, 2, 3, 0, 1));
    return vf_max(m, __builtin_shufflevector(m, m, 1, 0, 3, 2))[0];
}
TP_INLINE vf vf_load_f16(const uint16_t *p) {
    const vi h = (vi)wasm_u32x4_load16x4(p), magnitude = h & 0x7fff;
    const vi finite =
        (vi)((vf)(magnitude << 13) *
             vf_splat(0x1p112f)); /* exact; shifted alone, exponents are 112 too low */
    return (vf)(finite | ((magnitude > 0x7bff) & (int32_t)TP_INF_BITS) |
                (vi)((vu)(h & 0x8000) << 16));
}
TP_INLINE vf vf_load_bf16(const uint16_t *p) {
    return (vf)wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16);
}
TP_INLINE vi vi_max(vi a, vi b) { return (vi)wasm_i32x4_max((v128_t)a, (v128_t)b); }
TP_INLINE vi vi_load_u8(const uint8_t *p) {
    return (vi)wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(p)));
}
TP_INLINE void vi_store_i8(int8_t *p, const vi v[4]) {
    const v128_t a = wasm_i16x8_narrow_i32x4((v128_t)v[0], (v128_t)v[1]),
                 b = wasm_i16x8_narrow_i32x4((v128_t)v[2], (v128_t)v[3]);
    wasm_v128_store(p, wasm_i8x16_narrow_i16x8(a, b));
}

TP_INLINE void vi_store_i16(int16_t *p, const vi v[4]) {
    wasm_v128_store(p, wasm_i16x8_narrow_i32x4((v128_t)v[0], (v128_t)v[1]));
    wasm_v128_store(p + 8, wasm_i16x8_narrow_i32x4((v128_t)v[2], (v128_t)v[3]));
}
TP_INLINE vf vi_float(vi a) { return (vf)wasm_f32x4_convert_i32x4((v128_t)a); }
TP_INLINE vdot vi_dot(vdot acc, vi a, vi b) {
    return acc + (vi)wasm_i32x4_dot_i16x8((v128_t)a, (v128_t)b);
}
TP_INLINE vi vi_dots(vdot acc) { return acc; }

TP_INLINE vf vf_quarter(lanes a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
TP_INLINE float lanes_tree(lanes a) {
    const vf t4 = vf_quarter(a);
    return (t4[0] + t4[2]) + (t4[1] + t4[3]);
}

TP_INLINE void lanes_trees(const lanes a[TREES], float *out) {
    const vf p = vf_quarter(a[0]), q = vf_quarter(a[1]), r = vf_quarter(a[2]), s = vf_quarter(a[3]);
    const vf pq =
        __builtin_shufflevector(p, q, 0, 1, 4, 5) + __builtin_shufflevector(p, q, 2, 3, 6, 7);
    const vf rs =
        __builtin_shufflevector(r, s, 0, 1, 4, 5) + __builtin_shufflevector(r, s, 2, 3, 6, 7);
    vf_store(out, __builtin_shufflevector(pq, rs, 0, 2, 4, 6) +
                      __builtin_shufflevector(pq, rs, 1, 3, 5, 7));
}

/* As in NEON. */
TP_INLINE vf vf_table(const float entries[4]) { return vf_load(entries); }
TP_INLINE vf vf_of_table(vf table, vi codes, const int shift) {
    const vu bytes = ((vu)(codes >> shift) & 3u) * 0x04040404u + 0x03020100u;
    return (vf)wasm_i8x16_swizzle((v128_t)table, (v128_t)bytes);
}

/* As in AVX-512. */
TP_INLINE vf vf_swap(vf a, const int width) {
    return width == 1 ? __builtin_shufflevector(a, a, 1, 0, 3, 2)
                      : __builtin_shufflevector(a, a, 2, 3, 0, 1);
}

#endif
