/* The product of many tokens by 256-bit words: a layout's file unpacks 16 rows at a time into a panel, this multiplies it.
 *
 * panel: [cols / 4][2][8 rows][4 columns] u8 codes 0 .. 3. acts: tiles of 4 tokens, each [cols / 4][4 tokens][4 columns]. */
#ifndef TRITPACK_MATMUL_AVX2_H
#define TRITPACK_MATMUL_AVX2_H

#include <immintrin.h>

#include "../common.h"
#include "../stream.h"

enum { PANEL_ROWS = 16, TILE = 4 };

#define EACH4(X) X(0) X(1) X(2) X(3)

#ifdef TP_DOT256
/* AVX-VNNI: eight accumulators in registers. */
#define ACC_ZERO(t) __m256i lo##t = _mm256_setzero_si256(), hi##t = lo##t;
#define ACC_STEP(t) { \
        int32_t four; \
        memcpy(&four, q + 4 * t, 4); \
        const __m256i s = _mm256_set1_epi32(four); \
        TP_DOT256(&lo##t, w0, s); \
        TP_DOT256(&hi##t, w1, s); \
    }
#define ACC_OUT(t) \
    _mm256_storeu_si256((__m256i *)(to + 16 * t), lo##t); \
    _mm256_storeu_si256((__m256i *)(to + 16 * t + 8), hi##t);

static void tile_4(const uint8_t *panel, const int8_t *q, int64_t quads, int32_t *to /* (4 tokens, 16 rows) */) {
    EACH4(ACC_ZERO)
    for (int64_t k = 0; k < quads; k++, panel += 64, q += 16) {
        const __m256i w0 = _mm256_load_si256((const __m256i *)panel), w1 = _mm256_load_si256((const __m256i *)(panel + 32));
        EACH4(ACC_STEP)
    }
    EACH4(ACC_OUT)
}
#else
/* AVX2: maddubs leaves pairs in int16, at most 2 * 3 * 128 = 768 each, so 32 steps (24576) are safe before they are widened. */
enum { STEPS_IN_INT16 = 32 };

/* Assembly, since gcc 12 moves every product before the additions and spills for it (tests/test_kernels.py). */
TP_INLINE void add_pairs(__m256i *acc, __m256i u, __m256i s) {
    __m256i pairs;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(*acc), "=&x"(pairs) : "x"(u), "x"(s));
}

#define ACC_STEP(t) { \
        int32_t four; \
        memcpy(&four, q + 4 * t, 4); \
        const __m256i s = _mm256_set1_epi32(four); \
        add_pairs(&lo##t, w0, s); \
        add_pairs(&hi##t, w1, s); \
    }
#define ACC_WIDEN(t) \
    sums[2 * t] = _mm256_add_epi32(sums[2 * t], _mm256_madd_epi16(lo##t, ones)); \
    sums[2 * t + 1] = _mm256_add_epi32(sums[2 * t + 1], _mm256_madd_epi16(hi##t, ones));

static void tile_4(const uint8_t *panel, const int8_t *q, int64_t quads, int32_t *to /* (4 tokens, 16 rows) */) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[8];
    for (int i = 0; i < 8; i++) sums[i] = _mm256_setzero_si256();
    for (int64_t k = 0; k < quads;) {
        const int64_t stop = k + STEPS_IN_INT16 < quads ? k + STEPS_IN_INT16 : quads;
        __m256i lo0 = _mm256_setzero_si256(), hi0 = lo0, lo1 = lo0, hi1 = lo0, lo2 = lo0, hi2 = lo0, lo3 = lo0, hi3 = lo0;
        for (; k < stop; k++, panel += 64, q += 16) {
            const __m256i w0 = _mm256_load_si256((const __m256i *)panel), w1 = _mm256_load_si256((const __m256i *)(panel + 32));
            EACH4(ACC_STEP)
        }
        EACH4(ACC_WIDEN)
    }
    for (int i = 0; i < 8; i++) _mm256_storeu_si256((__m256i *)(to + 8 * i), sums[i]);
}
#endif
/* Transposes 8 x 8 dwords. */
TP_INLINE void transpose8(__m256i v[8]) {
    __m256i t[8];
    for (int i = 0; i < 8; i += 4) {
        const __m256i a = _mm256_unpacklo_epi32(v[i], v[i + 1]), b = _mm256_unpackhi_epi32(v[i], v[i + 1]);
        const __m256i c = _mm256_unpacklo_epi32(v[i + 2], v[i + 3]), d = _mm256_unpackhi_epi32(v[i + 2], v[i + 3]);
        t[i] = _mm256_unpacklo_epi64(a, c);
        t[i + 1] = _mm256_unpackhi_epi64(a, c);
        t[i + 2] = _mm256_unpacklo_epi64(b, d);
        t[i + 3] = _mm256_unpackhi_epi64(b, d);
    }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm256_permute2x128_si256(t[j], t[4 + j], 0x20);
        v[4 + j] = _mm256_permute2x128_si256(t[j], t[4 + j], 0x31);
    }
}

typedef void unpack_panel_fn(const tp_tensor *w, int64_t row, int rows /* 1 .. 16 */, uint8_t *panel /* (16, cols) */);

TP_INLINE void matmul_panels(const tp_tensor *w, const int8_t *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1,
                             int32_t *out, int64_t ld, uint8_t *panel, tp_ahead next, unpack_panel_fn *unpack) {
    assert(w->cols % 4 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0 && (uintptr_t)panel % 64 == 0);
    for (int64_t r = row0; r < row1; r += PANEL_ROWS) {
        const int rows = row1 - r < PANEL_ROWS ? (int)(row1 - r) : PANEL_ROWS;
        unpack(w, r, rows, panel);
        for (int64_t t = 0; t < n; t += TILE) {
            int32_t sums[TILE * PANEL_ROWS];
            ask_for(next, (r - row0) * n + t * rows, TILE * rows, (row1 - row0) * n);
            tile_4(panel, acts + t * w->cols, w->cols / 4, sums);
            for (int64_t u = 0; u < TILE && t + u < n; u++)
                for (int i = 0; i < rows; i++) out[(t + u) * ld + r - row0 + i] = sums[u * PANEL_ROWS + i] - sum_q[t + u];
        }
    }
}

#endif
