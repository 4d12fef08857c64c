#include "../planes.h"

void pack_iq2_bn_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) { planes_pack_rows(TP_PLANES_IQ2_BN, codes, w, body); }
