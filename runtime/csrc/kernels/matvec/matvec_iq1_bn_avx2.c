#include "../words/words_avx2.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq1_bn_avx2, TP_LINES_IQ1_BN)
