/* The bytes of a layout to codes. TL1 and TL2 are in unpack_tl_scalar.c. */
#include "../iq1_bn.h"
#include "../iq2_bn_r4.h"
#include "../planes.h"
#include "../t158.h"

void unpack_i2_s_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    planes_unpack_rows(TP_PLANES_I2_S, w, row0, row1, out, ld);
}

void unpack_t2_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    planes_unpack_rows(TP_PLANES_T2, w, row0, row1, out, ld);
}

void unpack_t158_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    t158_unpack_rows(w, row0, row1, out, ld);
}

void unpack_tq1_0_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    stages_unpack_rows(TP_STAGES_TQ1_0, w, row0, row1, out, ld);
}

void unpack_tq2_0_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    planes_unpack_rows(TP_PLANES_TQ2_0, w, row0, row1, out, ld);
}

void unpack_q2_0_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    planes_unpack_rows(TP_PLANES_Q2_0, w, row0, row1, out, ld);
}

void unpack_ptq1_0_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out,
                          int64_t ld) {
    stages_unpack_rows(TP_STAGES_PTQ1_0, w, row0, row1, out, ld);
}

void unpack_pq2_0_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    planes_unpack_rows(TP_PLANES_PQ2_0, w, row0, row1, out, ld);
}

/* The five codes of a byte, the least significant trit first: (243 x) div 256 to base 3. */
#define Q(x) ((uint64_t)(243 * (x) / 256))
#define FIVE(x) \
    (Q(x) % 3 | Q(x) / 3 % 3 << 8 | Q(x) / 9 % 3 << 16 | Q(x) / 27 % 3 << 24 | Q(x) / 81 % 3 << 32)
#define FIVE_4(x) FIVE(x), FIVE((x) + 1), FIVE((x) + 2), FIVE((x) + 3)
#define FIVE_16(x) FIVE_4(x), FIVE_4((x) + 4), FIVE_4((x) + 8), FIVE_4((x) + 12)
#define FIVE_64(x) FIVE_16(x), FIVE_16((x) + 16), FIVE_16((x) + 32), FIVE_16((x) + 48)
static const uint64_t five[256] = {FIVE_64(0), FIVE_64(64), FIVE_64(128), FIVE_64(192)};

void unpack_iq1_bn_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out,
                          int64_t ld) {
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const uint8_t *from = (const uint8_t *)w->data + iq1_bn_row(w->cols, r);
        for (int64_t c = 0; c < w->cols; c += 64, from += IQ1_BN_BYTES) {
            const uint64_t last = five[from[12]];
            for (int g = 0; g < 4;
                 g++) { /* 16 columns: two words, the sixteenth code from the thirteenth byte */
                const uint64_t a = five[from[3 * g]], b = five[from[3 * g + 1]],
                               d = five[from[3 * g + 2]];
                const uint64_t words[2] = {a | b << 40,
                                           b >> 24 | d << 16 | (last >> 8 * g & 255) << 56};
                memcpy(out + c + 16 * g, words, 16);
            }
        }
    }
}

void unpack_iq2_bn_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out,
                          int64_t ld) {
    planes_unpack_rows(TP_PLANES_IQ2_BN, w, row0, row1, out, ld);
}

void unpack_iq2_bn_r4_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out,
                             int64_t ld) {
    for (int64_t r = row0; r < row1; r++, out += ld) {
        const uint8_t *from = (const uint8_t *)w->data + iq2_bn_r4_row(w->cols, r);
        for (int64_t c = 0; c < w->cols; c += 16, from += 16) {
            uint32_t word, codes[4];
            memcpy(&word, from, 4);
            for (int plane = 0; plane < 4; plane++) codes[plane] = word >> 2 * plane & 0x03030303u;
            memcpy(out + c, codes, 16);
        }
    }
}

void unpack_hf_u8_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    quarters_unpack_rows(w, row0, row1, out, ld);
}

void unpack_mlx2_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    planes_unpack_rows(TP_PLANES_MLX2(w->cols), w, row0, row1, out, ld);
}
