#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_ptq1_0_neon, TP_LINES_PTQ1_0)
