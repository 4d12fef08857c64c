/* Ternary rows by floats in plain C: the specification. */
#include "../planes.h"
#include "../trits.h"

void matvec_f32_i2_s_scalar(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                            const float *scales, int64_t col_blocks, const float *x, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *row = codes + r * ld;
        float lanes[16] = {0};
        for (int64_t c = 0; c < cols; c++) {
            const int code = row[c / 128 * 32 + c % 32] >> (6 - 2 * (c % 128 / 32)) & 3;
            lanes[c % 16] +=
                ((float)(code - 1) * scales[r * col_blocks + c / (cols / col_blocks)]) * x[c];
        }
        out[r] = tp_tree16(lanes);
    }
}

/* One step of 128 plain codes. */
static void add_codes(const uint8_t *codes, float scale, const float *x, float *lanes) {
    for (int i = 0; i < 128; i++) lanes[i % 16] += ((float)(codes[i] - 1) * scale) * x[i];
}

void matvec_f32_pq2_0_scalar(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                             const float *scales, int64_t col_blocks, const float *x, float *out) {
    (void)col_blocks;
    for (int64_t r = 0; r < rows; r++) {
        float lanes[16] = {0};
        for (int64_t c = 0; c < cols; c += 128) {
            const uint8_t *block = codes + r * ld + c / 128 * TP_PLANES_PQ2_0.bytes;
            uint8_t plain[128];
            for (int i = 0; i < 128; i++)
                plain[i] = block[TP_PLANES_PQ2_0.first + i / 4] >> 2 * (i % 4) & 3;
            add_codes(plain, tp_f16_float(tp_load_u16(block)) * *scales, x + c, lanes);
        }
        out[r] = tp_tree16(lanes);
    }
}

void matvec_f32_ptq1_0_scalar(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                              const float *scales, int64_t col_blocks, const float *x, float *out) {
    (void)col_blocks;
    for (int64_t r = 0; r < rows; r++) {
        float lanes[16] = {0};
        for (int64_t c = 0; c < cols; c += 128) {
            const uint8_t *from = codes + r * ld + c / 128 * TP_STAGES_PTQ1_0.bytes;
            uint8_t plain[128];
            trits_unpack(from, 16, 5, plain);
            trits_unpack(from + 16, 8, 5, plain + 80);
            trits_unpack(from + 24, 2, 4, plain + 120);
            add_codes(plain, tp_f16_float(tp_load_u16(from + 26)) * *scales, x + c, lanes);
        }
        out[r] = tp_tree16(lanes);
    }
}

void matvec_f32_u8_scalar(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                          const float *scales, int64_t col_blocks, const float *x, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *row = codes + r * ld;
        float lanes[16] = {0};
        for (int64_t c = 0; c < cols; c++)
            lanes[c % 16] +=
                ((float)((row[c]) - 1) * scales[r * col_blocks + c / (cols / col_blocks)]) * x[c];
        out[r] = tp_tree16(lanes);
    }
}
