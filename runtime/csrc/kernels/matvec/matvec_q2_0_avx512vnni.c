#include "../words/words_avx512vnni.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_q2_0_avx512vnni, TP_LINES_Q2_0)
