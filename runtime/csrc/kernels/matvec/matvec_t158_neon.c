#include "../words/words_neon.h"

#include "matvec_lines.h"

MATVEC_T158(neon)
