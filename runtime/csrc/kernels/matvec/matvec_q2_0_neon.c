#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_q2_0_neon, TP_LINES_Q2_0)
