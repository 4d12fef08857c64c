#include "panel_i2_s_256.h"

void matmul_i2_s_avx2(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                      int64_t ld, void *scratch, tp_ahead next) {
    assert(w->cols % 128 == 0);
    matmul_panels(w, acts, sum_q, n, row0, row1, out, ld, scratch, next, unpack_i2_s);
}
