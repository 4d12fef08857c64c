/* The AVX-512 VNNI product of many tokens, for any layout whose codes are 0 .. 255 less a
 * constant: a layout's file unpacks 32 rows at a time into a panel, this multiplies it.
 *
 * panel: [cols / 4][2][16 rows][4 columns] u8 codes. acts: tiles of 12 tokens (the last of 4, 8
 * or 12), each [cols / 4][tokens][4 columns] int8. One 4-byte broadcast serves two dot products;
 * 24 accumulators stay in registers. */
#ifndef TRITPACK_MATMUL_512_H
#define TRITPACK_MATMUL_512_H

#include "../simd_i8/avx512vnni.h"
#include "../stream.h"

enum { PANEL_ROWS = 32, TILE = 12 };

#define EACH4(X) X(0) X(1) X(2) X(3)
#define EACH8(X) EACH4(X) X(4) X(5) X(6) X(7)
#define EACH12(X) EACH8(X) X(8) X(9) X(10) X(11)

#define ACC_ZERO(t) __m512i lo##t = _mm512_setzero_si512(), hi##t = lo##t;
#define ACC_STEP(t) \
    { \
        int32_t four; \
        memcpy(&four, q + 4 * t, 4); \
        const __m512i s = _mm512_set1_epi32(four); \
        dot_u8_s8(&lo##t, w0, s); \
        dot_u8_s8(&hi##t, w1, s); \
    }
#define ACC_OUT(t) \
    if (t < tokens) { \
        const __m512i less = _mm512_set1_epi32(sum_q[t]); \
        _mm512_mask_storeu_epi32(out + t * ld, mask0, _mm512_sub_epi32(lo##t, less)); \
        if (mask1) \
            _mm512_mask_storeu_epi32(out + t * ld + 16, mask1, _mm512_sub_epi32(hi##t, less)); \
    }
#define TILE_FUNCTION(T) \
    static void tile_##T(const uint8_t *panel, const int8_t *q, int64_t quads, \
                         const int32_t *sum_q, int tokens, __mmask16 mask0, __mmask16 mask1, \
                         int32_t *out, int64_t ld) { \
        EACH##T(ACC_ZERO) for (int64_t k = 0; k < quads; k++, panel += 128, q += 4 * T) { \
            const __m512i w0 = _mm512_load_si512(panel), w1 = _mm512_load_si512(panel + 64); \
            EACH##T(ACC_STEP) \
        } \
        EACH##T(ACC_OUT) \
    }
TILE_FUNCTION(4)
TILE_FUNCTION(8)
TILE_FUNCTION(12)

/* Transposes 16 x 16 dwords in registers. */
TP_INLINE void transpose16(__m512i v[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(v[i], v[i + 1]),
                      b = _mm512_unpackhi_epi32(v[i], v[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(v[i + 2], v[i + 3]),
                      d = _mm512_unpackhi_epi32(v[i + 2], v[i + 3]);
        t[i] = _mm512_unpacklo_epi64(a, c); /* column 0 of each 128-bit quarter, rows i .. i + 3 */
        t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d);
        t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int j = 0; j < 4; j++) {
        const __m512i a = _mm512_shuffle_i32x4(t[j], t[4 + j], 0x44),
                      b = _mm512_shuffle_i32x4(t[j], t[4 + j], 0xee);
        const __m512i c = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0x44),
                      d = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0xee);
        v[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        v[4 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
        v[8 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
        v[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

/* Columns after w's own meet activations of 0: they may be any codes. */
typedef void panel_fn(const tp_tensor *w, int64_t cols, int64_t row, int rows /* 1 .. 32 */,
                      uint8_t *panel /* (32, cols) */);

TP_INLINE void matmul_panels(const tp_tensor *w, int64_t cols /* of acts */, const int8_t *acts,
                             const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1,
                             int32_t *out, int64_t ld, uint8_t *panel, tp_prefetch next,
                             panel_fn *unpack) {
    assert(cols % 4 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0 &&
           (uintptr_t)panel % 64 == 0);
    for (int64_t r = row0; r < row1; r += PANEL_ROWS) {
        const int rows = row1 - r < PANEL_ROWS ? (int)(row1 - r) : PANEL_ROWS;
        const __mmask16 mask0 = (__mmask16)(rows >= 16 ? 0xffff : (1 << rows) - 1);
        const __mmask16 mask1 = (__mmask16)(rows > 16 ? (1u << (rows - 16)) - 1 : 0);
        unpack(w, cols, r, rows, panel);
        for (int64_t t = 0; t < n; t += TILE) {
            const int tokens = n - t < TILE ? (int)(n - t) : TILE;
            const int8_t *q = acts + t * cols;
            int32_t *to = out + t * ld + r - row0;
            prefetch_share(next, (r - row0) * n + t * rows, TILE * rows, (row1 - row0) * n);
            if (tokens > 8) tile_12(panel, q, cols / 4, sum_q + t, tokens, mask0, mask1, to, ld);
            else if (tokens > 4)
                tile_8(panel, q, cols / 4, sum_q + t, tokens, mask0, mask1, to, ld);
            else tile_4(panel, q, cols / 4, sum_q + t, tokens, mask0, mask1, to, ld);
        }
    }
}

#endif
