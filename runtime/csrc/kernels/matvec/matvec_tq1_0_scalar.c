#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_tq1_0_scalar, TP_LINES_TQ1_0)
