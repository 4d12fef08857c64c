/* What the heads of q8_0, q6_k and q4_k share where words have 128 bits. */
#ifndef TRITPACK_LM_HEAD_QUANTS_128_H
#define TRITPACK_LM_HEAD_QUANTS_128_H

#include "../simd_f32/lanes16.h"
#include "../quants.h"
#include "../stream.h"

typedef uint8_t bytes __attribute__((vector_size(16)));
typedef int16_t shorts __attribute__((vector_size(16)));
typedef uint16_t pairs __attribute__((vector_size(16)));

TP_INLINE bytes bytes_load(const uint8_t *p) { return (bytes)vi_load(p); }
TP_INLINE vi vi_load_i32(const int32_t *p) { return vi_load((const uint8_t *)p); }

/* start + four sums: 16 codes, the even and the odd ones as int16, by their activations q[0 ..
 * 7] and q[32 .. 39]. */
TP_INLINE vf dot16(shorts even, shorts odd, const int16_t *q, vi start) {
    const vi a = vi_load((const uint8_t *)q), b = vi_load((const uint8_t *)(q + 32));
    return vi_float(start + vi_dots(vi_dot(vi_dot((vdot){0}, (vi)even, a), (vi)odd, b)));
}

/* The same for unsigned codes as they lie. */
TP_INLINE vf dot16_u8(bytes codes, const int16_t *q, vi start) {
    return dot16((shorts)((pairs)codes & 0xff), (shorts)((pairs)codes >> 8), q, start);
}

#endif
