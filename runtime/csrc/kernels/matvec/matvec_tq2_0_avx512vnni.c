#include "../words/words_avx512vnni.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_tq2_0_avx512vnni, TP_LINES_TQ2_0)
