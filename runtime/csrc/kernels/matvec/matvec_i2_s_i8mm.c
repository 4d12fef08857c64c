#include "../words/words_i8mm.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_i2_s_i8mm, TP_LINES_I2_S)
