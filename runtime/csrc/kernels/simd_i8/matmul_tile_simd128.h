/* What matmul_128.inc multiplies with on WebAssembly. */
#ifndef TRITPACK_MATMUL_TILE_SIMD128_H
#define TRITPACK_MATMUL_TILE_SIMD128_H

#include "simd128.h"

#define WORD v128_t
TP_INLINE WORD word_zero(void) { return wasm_i32x4_splat(0); }
TP_INLINE WORD word_load(const void *p) { return wasm_v128_load(p); }
TP_INLINE void word_store(int32_t *p, WORD v) { wasm_v128_store(p, v); }
TP_INLINE WORD word_four(const int8_t *p) { return wasm_v128_load32_splat(p); }
TP_INLINE WORD word_dot(WORD acc, WORD codes, WORD q) { return simd128_dot(acc, codes, q); }

#endif
