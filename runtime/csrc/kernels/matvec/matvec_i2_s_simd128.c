#include "../words/words_simd128.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_i2_s_simd128, TP_LINES_I2_S)
