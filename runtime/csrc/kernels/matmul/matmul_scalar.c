/* The product of many tokens in plain C: the specification. */
#include "../i2_s.h"
#include "../t158.h"
#include "../u8.h"

void matmul_i2_s_scalar(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n,
                        int64_t row0, int64_t row1, int32_t *out, int64_t ld, void *scratch,
                        tp_prefetch next) {
    assert(w->cols % 128 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    const int8_t *q = acts;
    (void)scratch, (void)next;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t t = 0; t < n; t++)
            out[t * ld + r - row0] = i2_s_dot(i2_s_row(w, r), q + t * w->cols, w->cols) - sum_q[t];
}

void matmul_u8_scalar(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n,
                      int64_t row0, int64_t row1, int32_t *out, int64_t ld, void *scratch,
                      tp_prefetch next) {
    assert(w->cols % 128 == 0 && 0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    const int8_t *q = acts;
    (void)scratch, (void)next;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t t = 0; t < n; t++)
            out[t * ld + r - row0] = u8_dot(u8_row(w, r), q + t * w->cols, w->cols) - sum_q[t];
}

tp_unpack_fn unpack_t158_scalar;

void matmul_t158_scalar(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n,
                        int64_t row0, int64_t row1, int32_t *out, int64_t ld, void *scratch,
                        tp_prefetch next) {
    assert(0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    const int64_t padded = (w->cols + 127) / 128 * 128;
    const int8_t *q = acts;
    uint8_t *codes = scratch;
    (void)next;
    for (int64_t r = row0; r < row1; r++) {
        unpack_t158_scalar(w, r, r + 1, codes, w->cols);
        for (int64_t t = 0; t < n; t++)
            out[t * ld + r - row0] = u8_dot(codes, q + t * padded, w->cols) - sum_q[t];
    }
}
