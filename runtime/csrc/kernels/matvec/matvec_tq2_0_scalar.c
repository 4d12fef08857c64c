#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_tq2_0_scalar, TP_LINES_TQ2_0)
