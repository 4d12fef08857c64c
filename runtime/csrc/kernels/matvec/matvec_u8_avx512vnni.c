#include "../words/words_avx512vnni.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_u8_avx512vnni, TP_LINES_U8)
