#include "../planes.h"

void pack_pq2_0_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) { planes_pack_rows(TP_PLANES_PQ2_0, codes, w, body); }
