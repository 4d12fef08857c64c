/* What SIMD128 has in place of a dot product of bytes. */
#ifndef TRITPACK_SIMD128_H
#define TRITPACK_SIMD128_H

#include <wasm_simd128.h>

#include "../common.h"

/* acc += u * s, unsigned by signed, four neighbours to a lane: the even bytes and the odd ones
 * as int16. */
TP_INLINE v128_t simd128_dot(v128_t acc, v128_t u, v128_t s) {
    const v128_t even = wasm_i32x4_dot_i16x8(wasm_v128_and(u, wasm_i16x8_splat(0xff)),
                                             wasm_i16x8_shr(wasm_i16x8_shl(s, 8), 8));
    const v128_t odd = wasm_i32x4_dot_i16x8(wasm_u16x8_shr(u, 8), wasm_i16x8_shr(s, 8));
    return wasm_i32x4_add(acc, wasm_i32x4_add(even, odd));
}

/* acc += signed bytes, two neighbours to a lane of int16. */
TP_INLINE v128_t simd128_add_pairs(v128_t acc, v128_t s) {
    return wasm_i16x8_add(acc, wasm_i16x8_extadd_pairwise_i8x16(s));
}

#endif
