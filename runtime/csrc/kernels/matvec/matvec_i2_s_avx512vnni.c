#include "../words/words_avx512vnni.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_i2_s_avx512vnni, TP_LINES_I2_S)
