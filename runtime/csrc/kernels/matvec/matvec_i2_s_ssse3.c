#include "../words/words_ssse3.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_i2_s_ssse3, TP_LINES_I2_S)
