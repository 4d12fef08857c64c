#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq2_bn_neon, TP_LINES_IQ2_BN)
