/* The words of NEON for matvec_lines.inc; words_scalar.h says what each of them does. */
#ifndef TRITPACK_WORDS_NEON_H
#define TRITPACK_WORDS_NEON_H

#include "neon.h"

#define sdot neon_dot
#include "sdot.inc"

#endif
