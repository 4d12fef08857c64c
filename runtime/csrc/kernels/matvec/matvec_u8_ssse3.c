#include "../words/words_ssse3.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_u8_ssse3, TP_LINES_U8)
