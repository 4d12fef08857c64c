/* Matvec kernels read a row as lines of up to 64 bytes and never take a code out of its byte's
 * place: the activations are put where the codes are instead, once per token. This is the one
 * description of where that is, for every layout that has rows of its own; scales that stand
 * between codes meet activations of 0.
 *
 * Activations as arranged: [line][field][64], int8. Byte p of a line meets place p of each
 * field. Fields are, of 2-bit codes, bits 7-6, 5-4, 3-2, 1-0; of trits, the five digits, the
 * most significant first; of plain codes the byte itself. */
#ifndef TRITPACK_ROW_GEOMETRY_H
#define TRITPACK_ROW_GEOMETRY_H

#include "t158.h"

enum { LINE = 64, MOST_FIELDS = 5 };

typedef enum tp_line_kind {
    LINE_CODES = 1,
    LINE_PLANES = 4,
    LINE_TRITS = 5
} tp_line_kind; /* = its fields */

typedef struct tp_lines {
    tp_line_kind kind;
    int unit_cols, unit_bytes; /* a row is made of units of so many columns and bytes */
    int units;                 /* units per line */
    int header, first;         /* bytes before each row; where in a unit its codes begin */
    int width, low_first;      /* planes: byte p of a unit holds columns p, width + p, ... */
    int stages; /* trits: 1 = stages of TQ1_0, the first `width` bytes wide; 0 = IQ1_BN */
    int rows;   /* rows that are interleaved in words of 4 bytes; 0 = none are */
} tp_lines;

#define TP_LINES_U8 \
    { LINE_CODES, 64, 64, 1, .width = 64 }
#define TP_LINES_I2_S \
    { LINE_PLANES, 128, 32, 2, .width = 32 }
#define TP_LINES_TQ2_0 \
    { LINE_PLANES, 256, 66, 1, .width = 32, .low_first = 1 }
#define TP_LINES_Q2_0 \
    { LINE_PLANES, 64, 18, 3, .first = 2, .width = 1, .low_first = 1 }
#define TP_LINES_PQ2_0 \
    { LINE_PLANES, 128, 34, 1, .first = 2, .width = 1, .low_first = 1 }
#define TP_LINES_IQ2_BN \
    { LINE_PLANES, 64, 16, 4, .header = 4, .width = 16, .low_first = 1 }
#define TP_LINES_IQ2_BN_R4 \
    { LINE_PLANES, 64, 64, 1, .header = 16, .width = 4, .low_first = 1, .rows = 4 }
#define TP_LINES_TQ1_0 \
    { LINE_TRITS, 256, 54, 1, .width = 32, .stages = 1 }
#define TP_LINES_PTQ1_0 \
    { LINE_TRITS, 128, 28, 2, .width = 16, .stages = 1 }
#define TP_LINES_IQ1_BN \
    { LINE_TRITS, 64, 13, 4, .header = 2 }

/* Of the rows that stand together. */
static inline int64_t lines_row_bytes(tp_lines l, int64_t cols) {
    return l.header + cols / l.unit_cols * l.unit_bytes;
}
static inline int64_t lines_of_row(tp_lines l, int64_t cols) {
    return (cols / l.unit_cols + l.units - 1) / l.units;
}
static inline int lines_code_bytes(tp_lines l) { /* of a line, from its first code */
    const int bytes = l.units * l.unit_bytes - l.first;
    return bytes < LINE ? bytes : LINE;
}

/* The column of a unit that field f of its byte p holds, counted from the unit's first byte; -1
 * for none. */
static inline int lines_column(tp_lines l, int p, int f) {
    p -= l.first;
    if (l.rows) p = p / (4 * l.rows) * 4 + p % 4; /* the same for each of them */
    if (l.kind == LINE_CODES) return p;
    if (l.kind == LINE_PLANES) {
        const int run = p / l.width, plane = l.low_first ? 3 - f : f;
        return p < 0 || p >= l.unit_cols / 4 ? -1
                                             : 4 * run * l.width + plane * l.width + p % l.width;
    }
    if (!l.stages) return p < 12 ? p / 3 * 16 + p % 3 * 5 + 4 - f : f == 0 ? -1 : 16 * (4 - f) + 15;
    const int both = l.width + l.width / 2, last = l.width / 8;
    if (p < l.width) return f * l.width + p;
    if (p < both) return 5 * l.width + f * (l.width / 2) + p - l.width;
    return p < both + last && f < 4 ? 5 * both + f * last + p - both : -1;
}

#endif
