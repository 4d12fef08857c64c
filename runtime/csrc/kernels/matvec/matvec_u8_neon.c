#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_u8_neon, TP_LINES_U8)
