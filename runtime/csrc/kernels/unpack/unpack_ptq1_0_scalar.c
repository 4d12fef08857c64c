#include "../trits.h"

void unpack_ptq1_0_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    stages_unpack_rows(TP_STAGES_PTQ1_0, w, row0, row1, out, ld);
}
