#include "../planes.h"

void unpack_tq2_0_scalar(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    planes_unpack_rows(TP_PLANES_TQ2_0, w, row0, row1, out, ld);
}
