#include "../words/words_avx2.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_u8_avx2, TP_LINES_U8)
