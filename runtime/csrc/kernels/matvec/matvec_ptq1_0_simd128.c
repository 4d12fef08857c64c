#include "../words/words_simd128.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_ptq1_0_simd128, TP_LINES_PTQ1_0)
