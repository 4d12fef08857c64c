#include "../words/words_avx2.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_ptq1_0_avx2, TP_LINES_PTQ1_0)
