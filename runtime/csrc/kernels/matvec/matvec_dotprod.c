/* The product of one token, for NEON with dotprod: one line per layout. Lines of codes are added
 * up in simd_i8/sdot.inc, in the words of matvec_words_dotprod.h. */
#include "../simd_i8/matvec_words_dotprod.h"

#include "matvec_lines.inc"

MATVEC_LINES(matvec_i2_s_dotprod, TP_LINES_I2_S)
MATVEC_T158(dotprod)
MATVEC_LINES(matvec_u8_dotprod, TP_LINES_U8)
