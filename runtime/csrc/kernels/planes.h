/* Bit planes: a run of 4 * width codes takes width bytes; byte p holds codes p, width + p, 2
 * width + p and 3 width + p, the first in the high bits or in the low ones. Loops run over
 * neighbouring bytes, so that the compiler vectorises them. */
#ifndef TRITPACK_PLANES_H
#define TRITPACK_PLANES_H

#include "codes.h"

#if defined(__AVX2__)
#define TP_PLANE_BYTES 32
#else
#define TP_PLANE_BYTES 16
#endif

/* Rows of blocks of bit planes. */
typedef struct tp_planes {
    int64_t block, bytes; /* codes and bytes of a block, its scale included */
    int first;            /* where in a block its codes begin */
    int header;           /* bytes in front of each row */
    int width, high_first;
    int padded; /* a last block that is not whole is filled with zero weights */
} tp_planes;

#define TP_PLANES_I2_S ((tp_planes){.block = 128, .bytes = 32, .width = 32, .high_first = 1})
#define TP_PLANES_T2 \
    ((tp_planes){.block = 128, .bytes = 32, .width = 32, .high_first = 1, .padded = 1})
#define TP_PLANES_TQ2_0 ((tp_planes){.block = 256, .bytes = 66, .width = 32})
#define TP_PLANES_Q2_0 ((tp_planes){.block = 64, .bytes = 18, .first = 2, .width = 1})
#define TP_PLANES_PQ2_0 ((tp_planes){.block = 128, .bytes = 34, .first = 2, .width = 1})
#define TP_PLANES_IQ2_BN ((tp_planes){.block = 64, .bytes = 16, .header = 4, .width = 16})
#define TP_PLANES_MLX2(cols) ((tp_planes){.block = (cols), .bytes = (cols) / 4, .width = 1})

static inline int64_t planes_row_bytes(tp_planes p, int64_t cols) {
    return p.header + (cols + p.block - 1) / p.block * p.bytes;
}

/* Four neighbours a byte, low bits first: a byte is spread over a word by two shifts, and
 * gathered by two. */
TP_INLINE void neighbours_unpack(const uint8_t *restrict from, int64_t bytes,
                                 uint8_t *restrict to) {
    for (int64_t i = 0; i < bytes; i++) {
        uint32_t word = from[i];
        word = (word | word << 12) & 0x000f000fu;
        word = (word | word << 6) & 0x03030303u;
        memcpy(to + 4 * i, &word, 4);
    }
}

TP_INLINE void neighbours_pack(const int8_t *restrict from, int64_t bytes, uint8_t *restrict to) {
    for (int64_t i = 0; i < bytes; i++) {
        uint32_t word = codes4(from + 4 * i);
        word |= word >> 6;
        to[i] = (uint8_t)(word | word >> 12);
    }
}

/* Sixteen bytes of a plane at once: shifts of words move bits between bytes only into places
 * that the mask drops. */
TP_INLINE void plane16(const uint8_t *from, int shift, uint8_t *to) {
    typedef uint64_t two_words __attribute__((vector_size(16)));
    two_words words;
    memcpy(&words, from, 16);
    words = words >> shift & UINT64_C(0x0303030303030303);
    memcpy(to, &words, 16);
}

/* A row of planes as wide as a quarter of the matrix: one plane of the bytes of its quarter's
 * row. */
TP_INLINE void quarters_unpack_rows(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out,
                                    int64_t ld) {
    typedef uint64_t words __attribute__((vector_size(TP_PLANE_BYTES)));
    const int64_t quarter = w->rows / 4;
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const uint8_t *restrict from = (const uint8_t *)w->data + r % quarter * w->cols;
        uint8_t *restrict to = out;
        const int shift = (int)(2 * (r / quarter));
        int64_t c = 0;
        for (; c + TP_PLANE_BYTES <= w->cols; c += TP_PLANE_BYTES) {
            words some; /* as in plane16 */
            memcpy(&some, from + c, sizeof some);
            some = some >> shift & UINT64_C(0x0303030303030303);
            memcpy(to + c, &some, sizeof some);
        }
        for (; c < w->cols; c++) to[c] = from[c] >> shift & 3;
    }
}

/* Blocks without a scale: `codes` of them, whole runs, of width 1 or a multiple of 16. */
TP_INLINE void planes_unpack(const uint8_t *restrict from, int64_t codes, int width, int high_first,
                             uint8_t *restrict to) {
    if (width == 1) {
        neighbours_unpack(from, codes / 4, to);
        return;
    }
    for (int64_t run = 0; run < codes / 4; run += width)
        for (int p = 0; p < width; p += 16)
            for (int k = 0; k < 4; k++)
                plane16(from + run + p, high_first ? 6 - 2 * k : 2 * k,
                        to + 4 * run + k * width + p);
}

/* The byte is a number of four digits to base 4: doubling twice shifts by a digit. 85 = 1111 to
 * base 4 makes codes of weights. */
TP_INLINE void planes_pack(const int8_t *restrict from, int64_t codes, int width, int high_first,
                           uint8_t *restrict to) {
    if (width == 1) {
        neighbours_pack(from, codes / 4, to);
        return;
    }
    for (int64_t run = 0; run < codes / 4; run += width)
        for (int p = 0; p < width; p++) {
            uint8_t byte = 0;
            for (int k = 0; k < 4; k++)
                byte = (uint8_t)(4 * byte +
                                 (uint8_t)from[4 * run + (high_first ? k : 3 - k) * width + p]);
            to[run + p] = (uint8_t)(byte + 85);
        }
}

enum { TP_PLANES_LONGEST = 128 }; /* block of what is padded */

TP_INLINE void planes_unpack_rows(tp_planes l, const tp_tensor *w, int64_t row0, int64_t row1,
                                  uint8_t *out, int64_t ld) {
    const int64_t whole = w->cols / l.block * l.block;
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const uint8_t *from =
            (const uint8_t *)w->data + r * planes_row_bytes(l, w->cols) + l.header + l.first;
        for (int64_t c = 0; c < whole; c += l.block, from += l.bytes)
            planes_unpack(from, l.block, l.width, l.high_first, out + c);
        if (l.padded && whole < w->cols) {
            uint8_t last[TP_PLANES_LONGEST];
            planes_unpack(from, l.block, l.width, l.high_first, last);
            memcpy(out + whole, last, (size_t)(w->cols - whole));
        }
    }
}

TP_INLINE void planes_pack_rows(tp_planes l, const int8_t *codes, const tp_tensor *w,
                                uint8_t *body) {
    const int64_t whole = w->cols / l.block * l.block;
    for (int64_t r = 0; r < w->rows; r++, codes += w->cols) {
        uint8_t *to = body + r * planes_row_bytes(l, w->cols) + l.header + l.first;
        for (int64_t c = 0; c < whole; c += l.block, to += l.bytes)
            planes_pack(codes + c, l.block, l.width, l.high_first, to);
        if (l.padded && whole < w->cols) {
            int8_t last[TP_PLANES_LONGEST] = {0};
            memcpy(last, codes + whole, (size_t)(w->cols - whole));
            planes_pack(last, l.block, l.width, l.high_first, to);
        }
    }
}

#endif
