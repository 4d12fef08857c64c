#include "../words/words_avx512vnni.h"

#include "matvec_lines.h"

MATVEC_LINES(matvec_iq1_bn_avx512vnni, TP_LINES_IQ1_BN)
