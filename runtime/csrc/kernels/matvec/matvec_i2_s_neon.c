#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_i2_s_neon, TP_LINES_I2_S)
