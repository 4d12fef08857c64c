#include "../u8.h"

void matvec_u8_scalar(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                      int64_t ld, void *scratch) {
    assert(n == 1 && w->cols % 128 == 0 && 0 <= row0 && row1 <= w->rows);
    (void)scratch, (void)ld, (void)n;
    for (int64_t r = row0; r < row1; r++) out[r - row0] = u8_dot(u8_row(w, r), acts, w->cols) - sum_q[0];
}
