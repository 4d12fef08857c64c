/* The words of WebAssembly's SIMD128 for matvec_lines.inc: usdot.inc adds lines up in them,
 * matvec_words_scalar.h says what each of them does. */
#ifndef TRITPACK_MATVEC_WORDS_SIMD128_H
#define TRITPACK_MATVEC_WORDS_SIMD128_H

#include "simd128.h"

#define V v128_t
#define WORD 16
#define V_ZERO wasm_i32x4_splat(0)
#define V_LOAD wasm_v128_load
#define V_SPLAT8(x) wasm_i8x16_splat((int8_t)(x))
#define V_AND wasm_v128_and
#define V_ADD32 wasm_i32x4_add
#define V_SUB32 wasm_i32x4_sub
#define V_SAR32 wasm_i32x4_shr

/* Wraps. Of a + a + a clang makes a multiplication of bytes, which there is not: it takes the
 * word apart. */
TP_INLINE v128_t V_THRICE8(v128_t a) {
    return wasm_i8x16_add(wasm_v128_and(wasm_i16x8_shl(a, 1), V_SPLAT8(0xfe)), a);
}

#define V_SHR16 wasm_u16x8_shr
#define V_SUB8 wasm_i8x16_sub
#define V_MAX8 wasm_u8x16_max
#define V_AVG8 wasm_u8x16_avgr
#define V_ANDNOT(a, b) wasm_v128_andnot(b, a)

TP_INLINE int32_t V_TOTAL(v128_t a) {
    return wasm_i32x4_extract_lane(a, 0) + wasm_i32x4_extract_lane(a, 1) +
           wasm_i32x4_extract_lane(a, 2) + wasm_i32x4_extract_lane(a, 3);
}
TP_INLINE void V_DOT(v128_t *acc, v128_t u, v128_t s) { *acc = simd128_dot(*acc, u, s); }
TP_INLINE void V_TOTALS(const v128_t v[4], int32_t *out) {
    for (int i = 0; i < 4; i++) out[i] = V_TOTAL(v[i]);
}
TP_INLINE void V_ADD_QUADS(v128_t v, int32_t *totals) {
    wasm_v128_store(totals, wasm_i32x4_add(wasm_v128_load(totals), v));
}

#define MOST_ROWS_AT_ONCE 1
#define TOKENS_AT_ONCE 4
#define TILE_ROWS(tokens) 1
#define OWN_TRITS
#include "usdot.inc"

/* Opaque: of a mask and an `and` clang makes a choice between two words, which takes x86 three
 * instructions. */
TP_INLINE v128_t mask_above(v128_t x, int8_t limit) {
    v128_t mask = wasm_i8x16_gt(x, V_SPLAT8(limit));
    __asm__("" : "+r"(mask));
    return mask;
}

/* Bytes have no product, and simd128_dot needs nine instructions. Two comparisons of x - 128,
 * which trebles as x does, are enough: activations are masked by whether the digit is 1 or 2, and
 * by whether it is 2. Their pairs are added up in int16, to at most 20 * 2 * 128 a line. */
TP_INLINE void trits(sums *s, const uint8_t *p, int bytes, const int8_t *q) {
    v128_t some = V_ZERO, two = V_ZERO;
    EACH_WORD(i) {
        v128_t x = wasm_v128_xor(V_LOAD(p + WORD * i), V_SPLAT8(0x80));
#pragma GCC unroll 5
        for (int f = 0; f < 5; f++) {
            const v128_t a = V_LOAD(q + LINE * f + WORD * i);
            some = simd128_add_pairs(some, V_AND(a, mask_above(x, 85 - 128)));
            two = simd128_add_pairs(two, V_AND(a, mask_above(x, 170 - 128)));
            x = V_THRICE8(x);
        }
    }
    s->v[0] = V_ADD32(s->v[0], wasm_i32x4_extadd_pairwise_i16x8(some));
    s->u[0] = V_ADD32(s->u[0], wasm_i32x4_extadd_pairwise_i16x8(two));
}

TP_INLINE v128_t sums_of_trits(const sums *s) { return V_ADD32(s->v[0], s->u[0]); }

#endif
