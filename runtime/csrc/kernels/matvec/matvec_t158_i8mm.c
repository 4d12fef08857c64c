#include "../words/words_i8mm.h"

#include "matvec_lines.h"

MATVEC_T158(i8mm)
