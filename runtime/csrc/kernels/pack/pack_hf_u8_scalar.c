#include "../planes.h"

/* Bit planes as wide as a quarter of the matrix. */
void pack_hf_u8_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *restrict body) {
    const int64_t quarter = w->rows * w->cols / 4;
    const int8_t *restrict c0 = codes, *restrict c1 = c0 + quarter, *restrict c2 = c1 + quarter, *restrict c3 = c2 + quarter;
    for (int64_t i = 0; i < quarter; i++)
        body[i] = (uint8_t)(4 * (uint8_t)(4 * (uint8_t)(4 * (uint8_t)c3[i] + (uint8_t)c2[i]) + (uint8_t)c1[i]) + (uint8_t)c0[i] + 85);
}
