/* Q8_0, Q6_K and Q4_K as ggml stores them, and the one order in which their head products are
 * summed:
 *
 * activations are int16 per block of 256 columns (x ~ q * step). Elements 4 i .. 4 i + 3 are
 * multiplied and added as integers, v = sum w * q, exact and below 2^24; then lane (i mod 16) +=
 * (float)v * f, in order of i, f being the float factor of that place: q8_0: d * step; q6_k and
 * q4_k: (d * step) * (float)scale. q4_k then adds (float)bias * g to the same lane, g being
 * ((dmin * step) * (float)offset) / 32. Last the tree of common.h. */
#ifndef TRITPACK_QUANTS_H
#define TRITPACK_QUANTS_H

#include "common.h"

enum { Q8_0_BYTES = 34, Q6_K_BYTES = 210, Q6_K_QH = 128, Q6_K_SCALES = 192, Q6_K_D = 208 };
enum { Q4_K_BYTES = 144, Q4_K_DMIN = 2, Q4_K_SCALES = 4, Q4_K_CODES = 16 }; /* d comes first */

static inline const uint8_t *q8_0_row(const tp_tensor *w, int64_t r) {
    return (const uint8_t *)w->data + r * (w->cols / 32) * Q8_0_BYTES;
}
static inline const uint8_t *q6_k_row(const tp_tensor *w, int64_t r) {
    return (const uint8_t *)w->data + r * (w->cols / 256) * Q6_K_BYTES;
}

/* The 6-bit code (0 .. 63, weight + 32) of element e of a Q6_K block. */
static inline int q6_k_code(const uint8_t *block /* (210) */, int e) {
    const int half = e / 128, l = e % 128;
    const int low = block[64 * half + l % 64] >> (l < 64 ? 0 : 4) & 15;
    const int high = block[Q6_K_QH + 32 * half + l % 32] >> (2 * (l / 32)) & 3;
    return low | high << 4;
}

static inline const uint8_t *q4_k_row(const tp_tensor *w, int64_t r) {
    return (const uint8_t *)w->data + r * (w->cols / 256) * Q4_K_BYTES;
}

/* The 4-bit code of element e of a Q4_K block. */
static inline int q4_k_code(const uint8_t *block /* (144) */, int e) {
    return block[Q4_K_CODES + e / 64 * 32 + e % 32] >> (e / 32 % 2 * 4) & 15;
}

/* The 6-bit scales and offsets of its 8 sub-blocks of 32 elements. */
static inline void q4_k_scales(const uint8_t *block, uint8_t *scales /* (8) */,
                               uint8_t *offsets /* (8) */) {
    /* Four at a time: low six bits of the first two words, then the third with their high two. */
    uint32_t s[3];
    memcpy(s, block + Q4_K_SCALES, sizeof s);
    const uint32_t halves[4] = {
        s[0] & 0x3f3f3f3fu, (s[2] & 0x0f0f0f0fu) | (s[0] >> 6 & 0x03030303u) << 4,
        s[1] & 0x3f3f3f3fu, (s[2] >> 4 & 0x0f0f0f0fu) | (s[1] >> 6 & 0x03030303u) << 4};
    memcpy(scales, halves, 8);
    memcpy(offsets, halves + 2, 8);
}

/* Where element e of the activations lies (kernels.h). */
static inline int64_t acts16_index(int64_t e) { return e / 64 * 64 + e % 2 * 32 + e % 64 / 2; }

#endif
