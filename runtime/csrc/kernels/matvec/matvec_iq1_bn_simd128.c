#include "../words/words_simd128.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq1_bn_simd128, TP_LINES_IQ1_BN)
