/* The product of a few tokens, for SSSE3: one line per layout. Lines of codes are added up in
 * simd_i8/maddubs.inc, in the words of matvec_words_ssse3.h. */
#include "../simd_i8/matvec_words_ssse3.h"

#include "matvec_lines.inc"

MATVEC_LINES(matvec_i2_s_ssse3, TP_LINES_I2_S)
MATVEC_T158(ssse3)
MATVEC_LINES(matvec_u8_ssse3, TP_LINES_U8)
