/* The product of a few tokens, for AVX2: one line per layout. Lines of codes are added up in
 * simd_i8/maddubs.inc, in the words of matvec_words_avx2.h. The kernel of tl2 is in
 * matvec_tl2_avx2.c. */
#include "../simd_i8/matvec_words_avx2.h"

#include "matvec_lines.inc"

MATVEC_LINES(matvec_i2_s_avx2, TP_LINES_I2_S)
MATVEC_T158(avx2)
MATVEC_LINES(matvec_u8_avx2, TP_LINES_U8)
MATVEC_LINES(matvec_tq1_0_avx2, TP_LINES_TQ1_0)
MATVEC_LINES(matvec_tq2_0_avx2, TP_LINES_TQ2_0)
MATVEC_LINES(matvec_q2_0_avx2, TP_LINES_Q2_0)
MATVEC_LINES(matvec_ptq1_0_avx2, TP_LINES_PTQ1_0)
MATVEC_LINES(matvec_pq2_0_avx2, TP_LINES_PQ2_0)
MATVEC_LINES(matvec_iq1_bn_avx2, TP_LINES_IQ1_BN)
MATVEC_LINES(matvec_iq2_bn_avx2, TP_LINES_IQ2_BN)
MATVEC_LINES(matvec_iq2_bn_r4_avx2, TP_LINES_IQ2_BN_R4)
