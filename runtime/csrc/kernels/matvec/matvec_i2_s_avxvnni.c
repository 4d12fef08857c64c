#include "../words/words_avxvnni.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_i2_s_avxvnni, TP_LINES_I2_S)
