#include "../words/words_simd128.h"

#include "matvec_lines.h"

MATVEC_T158(simd128)
