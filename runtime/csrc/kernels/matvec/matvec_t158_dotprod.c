#include "../words/words_dotprod.h"

#include "matvec_lines.h"

MATVEC_T158(dotprod)
