#include "../planes.h"

void pack_mlx2_scalar(const int8_t *codes, const tp_tensor *w, uint8_t *body) { planes_pack_rows(TP_PLANES_MLX2(w->cols), codes, w, body); }
