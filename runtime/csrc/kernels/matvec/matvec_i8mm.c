/* The product of one token, for NEON with i8mm: one line per layout. Lines of codes are added up
 * in simd_i8/usdot.inc, in the words of matvec_words_i8mm.h. */
#include "../simd_i8/matvec_words_i8mm.h"

#include "matvec_lines.inc"

MATVEC_LINES(matvec_i2_s_i8mm, TP_LINES_I2_S)
MATVEC_T158(i8mm)
MATVEC_LINES(matvec_u8_i8mm, TP_LINES_U8)
