#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_u8_scalar, TP_LINES_U8)
