#include "../planes.h"

void pack_t2_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) { planes_pack_rows(TP_PLANES_T2, codes, w, body); }
