#include "../words/words_avx512vnni.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_ptq1_0_avx512vnni, TP_LINES_PTQ1_0)
