#include "../words/words_ssse3.h"

#include "matvec_lines.h"

MATVEC_T158(ssse3)
