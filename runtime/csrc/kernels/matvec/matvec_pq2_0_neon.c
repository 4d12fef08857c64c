#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_pq2_0_neon, TP_LINES_PQ2_0)
