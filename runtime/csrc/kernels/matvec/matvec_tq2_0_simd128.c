#include "../words/words_simd128.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_tq2_0_simd128, TP_LINES_TQ2_0)
