/* The product of a few tokens, for WebAssembly's SIMD128: one line per layout. Lines of codes are
 * added up in simd_i8/usdot.inc, in the words of matvec_words_simd128.h. */
#include "../simd_i8/matvec_words_simd128.h"

#include "matvec_lines.inc"

MATVEC_LINES(matvec_i2_s_simd128, TP_LINES_I2_S)
MATVEC_T158(simd128)
MATVEC_LINES(matvec_u8_simd128, TP_LINES_U8)
MATVEC_LINES(matvec_tq1_0_simd128, TP_LINES_TQ1_0)
MATVEC_LINES(matvec_tq2_0_simd128, TP_LINES_TQ2_0)
MATVEC_LINES(matvec_q2_0_simd128, TP_LINES_Q2_0)
MATVEC_LINES(matvec_ptq1_0_simd128, TP_LINES_PTQ1_0)
MATVEC_LINES(matvec_pq2_0_simd128, TP_LINES_PQ2_0)
MATVEC_LINES(matvec_iq1_bn_simd128, TP_LINES_IQ1_BN)
MATVEC_LINES(matvec_iq2_bn_simd128, TP_LINES_IQ2_BN)
MATVEC_LINES(matvec_iq2_bn_r4_simd128, TP_LINES_IQ2_BN_R4)
