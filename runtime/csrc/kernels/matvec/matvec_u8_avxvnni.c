#include "../words/words_avxvnni.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_u8_avxvnni, TP_LINES_U8)
