#include "../words/words_simd128.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_pq2_0_simd128, TP_LINES_PQ2_0)
