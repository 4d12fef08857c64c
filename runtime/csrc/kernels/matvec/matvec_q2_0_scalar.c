#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_q2_0_scalar, TP_LINES_Q2_0)
