#include "../words/words_simd128.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_u8_simd128, TP_LINES_U8)
