/* The words of NEON with dotprod for matvec_lines.inc: sdot.inc adds lines up in them,
 * matvec_words_scalar.h says what each of them does. */
#ifndef TRITPACK_MATVEC_WORDS_DOTPROD_H
#define TRITPACK_MATVEC_WORDS_DOTPROD_H

#include <arm_neon.h>

#include "../common.h"

#define sdot vdotq_s32
#include "sdot.inc"

#endif
