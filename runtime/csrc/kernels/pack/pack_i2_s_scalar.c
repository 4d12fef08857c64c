#include "../planes.h"

void pack_i2_s_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) { planes_pack_rows(TP_PLANES_I2_S, codes, w, body); }
