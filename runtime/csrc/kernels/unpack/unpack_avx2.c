/* Bytes to codes, vectorised by the compiler for AVX2. */
#include "../planes.h"
#include "../t158.h"

void unpack_t158_avx2(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    t158_unpack_rows(w, row0, row1, out, ld);
}

void unpack_tq1_0_avx2(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    stages_unpack_rows(TP_STAGES_TQ1_0, w, row0, row1, out, ld);
}

void unpack_hf_u8_avx2(const tp_tensor *w, int64_t row0, int64_t row1, uint8_t *out, int64_t ld) {
    quarters_unpack_rows(w, row0, row1, out, ld);
}
