/* The product of a few tokens, for NEON with i8mm: one line per layout. Lines of codes are added up
 * as with dotprod, in the words of simd_i8/matvec_words_dotprod.h. */
#include "../simd_i8/matvec_words_dotprod.h"

#include "matvec_lines.inc"

MATVEC_LINES(matvec_i2_s_i8mm, TP_LINES_I2_S)
MATVEC_T158(i8mm)
MATVEC_LINES(matvec_u8_i8mm, TP_LINES_U8)
