#include "../words/words_avx2.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq2_bn_r4_avx2, TP_LINES_IQ2_BN_R4)
