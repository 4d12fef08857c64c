/* Weights to the bytes of a layout. TL1 and TL2 are in pack_tl_scalar.c. */
#include "../iq1_bn.h"
#include "../iq2_bn_r4.h"
#include "../planes.h"
#include "../t158.h"

void pack_i2_s_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    planes_pack_rows(TP_PLANES_I2_S, codes, w, body);
}

void pack_t2_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    planes_pack_rows(TP_PLANES_T2, codes, w, body);
}

void pack_t158_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    for (int64_t r = 0; r < w->rows; r++, codes += w->cols) {
        const t158_place place = t158_row(w->rows, w->cols, r);
        int64_t c = 0;
        for (; c + T158_COLS <= w->cols; c += T158_COLS)
            trits_pack(codes + c, T158_LINE, T158_DIGITS, body + t158_line_at(place, c, T158_LINE));
        if (c == w->cols) continue;
        int8_t line[T158_COLS] = {0};
        const int bytes = t158_last_bytes(w->cols);
        memcpy(line, codes + c, (size_t)(w->cols - c));
        trits_pack(line, bytes, T158_DIGITS, body + t158_line_at(place, c, bytes));
    }
}

void pack_tq1_0_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    stages_pack_rows(TP_STAGES_TQ1_0, codes, w, body);
}

void pack_tq2_0_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    planes_pack_rows(TP_PLANES_TQ2_0, codes, w, body);
}

void pack_q2_0_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    planes_pack_rows(TP_PLANES_Q2_0, codes, w, body);
}

void pack_ptq1_0_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    stages_pack_rows(TP_STAGES_PTQ1_0, codes, w, body);
}

void pack_pq2_0_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    planes_pack_rows(TP_PLANES_PQ2_0, codes, w, body);
}

/* q of five codes in the low bytes of a word, the first one's weight being 1: byte 4 of this
 * product is the sum of byte k times 3^k, and no sum below it carries. */
static inline uint8_t number(uint64_t codes) {
    return (uint8_t)(codes * (UINT64_C(1) << 32 | 3 << 24 | 9 << 16 | 27 << 8 | 81) >> 32);
}

void pack_iq1_bn_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    for (int64_t r = 0; r < w->rows; r++) {
        uint8_t *const row = body + iq1_bn_row(w->cols, r), *to = row;
        for (int64_t c = 0; c < w->cols; c += 64, codes += 64, to += IQ1_BN_BYTES) {
            uint64_t last = 0;
            for (int g = 0; g < 4; g++) {
                const uint64_t low = codes8(codes + 16 * g), high = codes8(codes + 16 * g + 8);
                to[3 * g] = number(low);
                to[3 * g + 1] = number(low >> 40 | high << 24);
                to[3 * g + 2] = number(high >> 16);
                last |= high >> 56 << 8 * g;
            }
            to[12] = number(last);
        }
        for (int64_t i = 0; i < to - row; i++) row[i] = trits_byte(row[i]);
    }
}

void pack_iq2_bn_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    planes_pack_rows(TP_PLANES_IQ2_BN, codes, w, body);
}

void pack_iq2_bn_r4_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    for (int64_t r = 0; r < w->rows; r++) {
        uint8_t *to = body + iq2_bn_r4_row(w->cols, r);
        for (int64_t c = 0; c < w->cols; c += 16, codes += 16, to += 16) {
            uint32_t word = 0;
            for (int plane = 0; plane < 4; plane++) word |= codes4(codes + 4 * plane) << 2 * plane;
            memcpy(to, &word, 4);
        }
    }
}

/* Bit planes as wide as a quarter of the matrix. */
void pack_hf_u8_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *restrict body) {
    const int64_t quarter = w->rows * w->cols / 4;
    const int8_t *restrict c0 = codes, *restrict c1 = c0 + quarter, *restrict c2 = c1 + quarter,
                           *restrict c3 = c2 + quarter;
    for (int64_t i = 0; i < quarter; i++)
        body[i] = (uint8_t)(4 * (uint8_t)(4 * (uint8_t)(4 * (uint8_t)c3[i] + (uint8_t)c2[i]) +
                                          (uint8_t)c1[i]) +
                            (uint8_t)c0[i] + 85);
}

void pack_mlx2_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) {
    planes_pack_rows(TP_PLANES_MLX2(w->cols), codes, w, body);
}
