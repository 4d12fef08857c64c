/* The product of a few tokens, for AVX-VNNI: one line per layout. Lines of codes are added up in
 * simd_i8/usdot.inc, in the words of matvec_words_avxvnni.h. */
#include "../simd_i8/matvec_words_avxvnni.h"

#include "matvec_lines.inc"

MATVEC_LINES(matvec_i2_s_avxvnni, TP_LINES_I2_S)
MATVEC_T158(avxvnni)
MATVEC_LINES(matvec_u8_avxvnni, TP_LINES_U8)
