#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq1_bn_scalar, TP_LINES_IQ1_BN)
