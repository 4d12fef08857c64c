#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq1_bn_neon, TP_LINES_IQ1_BN)
