#include "../words/words_avx2.h"

#include "matvec_lines.h"

MATVEC_T158(avx2)
