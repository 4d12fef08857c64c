#include "../words/words_avx2.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_tq2_0_avx2, TP_LINES_TQ2_0)
