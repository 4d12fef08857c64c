#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_ptq1_0_scalar, TP_LINES_PTQ1_0)
