#include "../words/words_avx2.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_q2_0_avx2, TP_LINES_Q2_0)
