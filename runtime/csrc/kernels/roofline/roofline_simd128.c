/* How fast memory is read, for WebAssembly's SIMD128. */
#include <wasm_simd128.h>

#include "../common.h"

uint64_t read_u8_simd128(const uint8_t *data, int64_t n) {
    v128_t a = wasm_i8x16_splat(0), b = a, c = a, d = a;
    assert(n % 256 == 0);
    for (int64_t i = 0; i < n; i += 64) {
        a = wasm_v128_xor(a, wasm_v128_load(data + i));
        b = wasm_v128_xor(b, wasm_v128_load(data + i + 16));
        c = wasm_v128_xor(c, wasm_v128_load(data + i + 32));
        d = wasm_v128_xor(d, wasm_v128_load(data + i + 48));
    }
    const v128_t w = wasm_v128_xor(wasm_v128_xor(a, b), wasm_v128_xor(c, d));
    return (uint64_t)(wasm_i64x2_extract_lane(w, 0) ^ wasm_i64x2_extract_lane(w, 1));
}
