#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq2_bn_r4_neon, TP_LINES_IQ2_BN_R4)
