/* The words of NEON for matvec_lines.inc: sdot.inc adds lines up in them, matvec_words_scalar.h
 * says what each of them does. */
#ifndef TRITPACK_MATVEC_WORDS_NEON_H
#define TRITPACK_MATVEC_WORDS_NEON_H

#include "neon.h"

#define sdot neon_dot
#include "sdot.inc"

#endif
