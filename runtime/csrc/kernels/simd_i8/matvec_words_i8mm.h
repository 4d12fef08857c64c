/* The words of NEON with i8mm for matvec_lines.inc: usdot.inc adds lines up in them,
 * matvec_words_scalar.h says what each of them does. */
#ifndef TRITPACK_MATVEC_WORDS_I8MM_H
#define TRITPACK_MATVEC_WORDS_I8MM_H

#include <arm_neon.h>

#include "../common.h"

#define V int8x16_t
#define WORD 16
#define V_ZERO vdupq_n_s8(0)
#define V_LOAD(p) vld1q_s8((const int8_t *)(p))
#define V_SPLAT8(x) vdupq_n_s8((int8_t)(x))
#define V_AND vandq_s8
#define V_THRICE8(a) \
    vreinterpretq_s8_u8(vmulq_u8(vreinterpretq_u8_s8(a), vdupq_n_u8(3))) /* wraps */
#define V_ADD32(a, b) \
    vreinterpretq_s8_s32(vaddq_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)))
#define V_SUB32(a, b) \
    vreinterpretq_s8_s32(vsubq_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)))
#define V_SAR32(a, n) vreinterpretq_s8_s32(vshrq_n_s32(vreinterpretq_s32_s8(a), n))
#define V_U8(op, a, b) vreinterpretq_s8_u8(op(vreinterpretq_u8_s8(a), vreinterpretq_u8_s8(b)))
#define V_SHR16(a, n) vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(a), n)) /* masked after */
#define V_SUB8 vsubq_s8
#define V_MAX8(a, b) V_U8(vmaxq_u8, a, b)
#define V_AVG8(a, b) V_U8(vrhaddq_u8, a, b)
#define V_ANDNOT(a, b) vbicq_s8(b, a)
#define V_TOTAL(a) vaddvq_s32(vreinterpretq_s32_s8(a))

TP_INLINE void V_DOT(int8x16_t *acc, int8x16_t u, int8x16_t s) {
    *acc = vreinterpretq_s8_s32(vusdotq_s32(vreinterpretq_s32_s8(*acc), vreinterpretq_u8_s8(u), s));
}

TP_INLINE void V_TOTALS(const int8x16_t v[4], int32_t *out) {
    int32x4_t s[4];
    for (int i = 0; i < 4; i++) s[i] = vreinterpretq_s32_s8(v[i]);
    vst1q_s32(out, vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3])));
}

TP_INLINE void V_ADD_QUADS(int8x16_t v, int32_t *totals) {
    vst1q_s32(totals, vaddq_s32(vld1q_s32(totals), vreinterpretq_s32_s8(v)));
}

#define MOST_ROWS_AT_ONCE 1
#define TOKENS_AT_ONCE 8
#define TILE_ROWS(tokens) ((tokens) <= 4 ? 4 : 2)
#include "usdot.inc"

#endif
