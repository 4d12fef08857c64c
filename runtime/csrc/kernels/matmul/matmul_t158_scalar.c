#include "../t158.h"
#include "../u8.h"

tp_unpack_fn unpack_t158_scalar;

void matmul_t158_scalar(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                        int64_t ld, void *scratch, tp_ahead next) {
    assert(0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    const int64_t padded = (w->cols + 127) / 128 * 128;
    const int8_t *q = acts;
    uint8_t *codes = scratch;
    (void)next;
    for (int64_t r = row0; r < row1; r++) {
        unpack_t158_scalar(w, r, r + 1, codes, w->cols);
        for (int64_t t = 0; t < n; t++) out[t * ld + r - row0] = u8_dot(codes, q + t * padded, w->cols) - sum_q[t];
    }
}
