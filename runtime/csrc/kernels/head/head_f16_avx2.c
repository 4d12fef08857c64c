#define WEIGHT uint16_t
#define LOAD lanes_load_f16
#define LOAD_N lanes_load_f16_n
#include "head_float.h"

void head_f16_avx2(const tp_tensor *w, const tp_head_acts *x, int64_t n, int64_t row0, int64_t row1, float *out, int64_t ld) {
    head_float(w, x, n, row0, row1, out, ld);
}
