/* The product of one token, for AVX-VNNI. */
#include "../simd_i8/words_avxvnni.h"

#include "matvec_lines.inc"

MATVEC_LINES(matvec_i2_s_avxvnni, TP_LINES_I2_S)
MATVEC_T158(avxvnni)
MATVEC_LINES(matvec_u8_avxvnni, TP_LINES_U8)
