#include "../words/words_avxvnni.h"

#include "matvec_lines.h"

MATVEC_T158(avxvnni)
