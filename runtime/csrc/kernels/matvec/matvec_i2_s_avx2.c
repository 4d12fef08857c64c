#include "../words/words_avx2.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_i2_s_avx2, TP_LINES_I2_S)
