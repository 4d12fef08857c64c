#include "../words/words_dotprod.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_i2_s_dotprod, TP_LINES_I2_S)
