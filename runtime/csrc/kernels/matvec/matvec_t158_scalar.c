#include "../words/words_scalar.h"

#include "matvec_lines.h"

MATVEC_T158(scalar)
