#include "../words/words_dotprod.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_u8_dotprod, TP_LINES_U8)
