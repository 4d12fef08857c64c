#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_i2_s_scalar, TP_LINES_I2_S)
