/* The product of a few tokens, for NEON: one line per layout. Lines of codes are added up in
 * the words of simd_i8/matvec_words_neon.h. */
#include "../simd_i8/matvec_words_neon.h"

#include "matvec_lines.inc"

MATVEC_LINES(matvec_i2_s_neon, TP_LINES_I2_S)
MATVEC_T158(neon)
MATVEC_LINES(matvec_u8_neon, TP_LINES_U8)
MATVEC_LINES(matvec_tq1_0_neon, TP_LINES_TQ1_0)
MATVEC_LINES(matvec_tq2_0_neon, TP_LINES_TQ2_0)
MATVEC_LINES(matvec_q2_0_neon, TP_LINES_Q2_0)
MATVEC_LINES(matvec_ptq1_0_neon, TP_LINES_PTQ1_0)
MATVEC_LINES(matvec_pq2_0_neon, TP_LINES_PQ2_0)
MATVEC_LINES(matvec_iq1_bn_neon, TP_LINES_IQ1_BN)
MATVEC_LINES(matvec_iq2_bn_neon, TP_LINES_IQ2_BN)
MATVEC_LINES(matvec_iq2_bn_r4_neon, TP_LINES_IQ2_BN_R4)
