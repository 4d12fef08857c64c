#include "../words/words_i8mm.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_u8_i8mm, TP_LINES_U8)
