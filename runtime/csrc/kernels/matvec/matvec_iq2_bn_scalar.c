#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq2_bn_scalar, TP_LINES_IQ2_BN)
