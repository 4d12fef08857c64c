#include "../trits.h"

void pack_tq1_0_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) { stages_pack_rows(TP_STAGES_TQ1_0, codes, w, body); }
