#include "../words/words_dotprod.h"

#include "matvec_lines.h"

void matvec_t158_dotprod(const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                      int64_t ld, void *scratch) {
    assert(n == 1);
    (void)scratch, (void)ld, (void)n;
    matvec_t158(w, acts, sum_q[0], row0, row1, out);
}
