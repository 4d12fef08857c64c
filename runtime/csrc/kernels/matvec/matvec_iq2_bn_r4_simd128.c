#include "../words/words_simd128.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq2_bn_r4_simd128, TP_LINES_IQ2_BN_R4)
