#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_tq1_0_neon, TP_LINES_TQ1_0)
