#include "../words/words_avx512vnni.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq2_bn_r4_avx512vnni, TP_LINES_IQ2_BN_R4)
