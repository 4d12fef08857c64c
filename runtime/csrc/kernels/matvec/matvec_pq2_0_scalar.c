#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_pq2_0_scalar, TP_LINES_PQ2_0)
