/* Five trits a byte: codes c0 .. c4 make q = 81 c0 + 27 c1 + 9 c2 + 3 c3 + c4, the byte is 256 q
 * / 243 rounded up. So the first digit of byte x is (3 x) div 256, and (3 x) mod 256 is the byte
 * of the digits after it: 86 and 171 are where 3 x passes 256 and 512. Fewer codes leave the
 * last ones out as zeros. */
#ifndef TRITPACK_TRITS_H
#define TRITPACK_TRITS_H

#include "common.h"

static inline uint8_t trits_byte(uint8_t q) { return (uint8_t)((uint16_t)(256 * q + 242) / 243); }

/* A stage of `width` bytes: byte j holds codes j, width + j, 2 width + j, ... */
TP_INLINE void trits_unpack(const uint8_t *restrict from, int width, int digits,
                            uint8_t *restrict to) {
    for (int j = 0; j < width; j++) {
        uint8_t x = from[j];
        for (int d = 0; d < digits; d++) {
            to[d * width + j] = (uint8_t)((x >= 86) + (x >= 171));
            x = (uint8_t)(3 * x);
        }
    }
}

TP_INLINE void trits_pack(const int8_t *restrict from, int width, int digits,
                          uint8_t *restrict to) {
    for (int j = 0; j < width; j++) {
        uint8_t q = 0;
        for (int d = 0; d < digits; d++) q = (uint8_t)(3 * q + (uint8_t)(from[d * width + j] + 1));
        for (int d = digits; d < 5; d++) q = (uint8_t)(3 * q);
        to[j] = trits_byte(q);
    }
}

/* Blocks along a row, each with its scale after it: two stages of five digits, `wide` and wide /
 * 2 bytes, and one of four. */
typedef struct tp_stages {
    int block, bytes, wide, last;
} tp_stages;

#define TP_STAGES_TQ1_0 ((tp_stages){.block = 256, .bytes = 54, .wide = 32, .last = 4})
#define TP_STAGES_PTQ1_0 ((tp_stages){.block = 128, .bytes = 28, .wide = 16, .last = 2})

TP_INLINE void stages_unpack_rows(tp_stages l, const tp_tensor *w, int64_t row0, int64_t row1,
                                  uint8_t *out, int64_t ld) {
    const uint8_t *from = (const uint8_t *)w->data + row0 * (w->cols / l.block) * l.bytes;
    for (int64_t r = row0; r < row1; r++, out += ld)
        for (int64_t c = 0; c < w->cols; c += l.block, from += l.bytes) {
            const int half = l.wide / 2, both = l.wide + half;
            trits_unpack(from, l.wide, 5, out + c);
            trits_unpack(from + l.wide, half, 5, out + c + 5 * l.wide);
            trits_unpack(from + both, l.last, 4, out + c + 5 * both);
        }
}

TP_INLINE void stages_pack_rows(tp_stages l, const int8_t *codes, const tp_tensor *w,
                                uint8_t *body) {
    for (int64_t c = 0; c < w->rows * w->cols; c += l.block, body += l.bytes) {
        const int half = l.wide / 2, both = l.wide + half;
        trits_pack(codes + c, l.wide, 5, body);
        trits_pack(codes + c + 5 * l.wide, half, 5, body + l.wide);
        trits_pack(codes + c + 5 * both, l.last, 4, body + both);
    }
}

#endif
