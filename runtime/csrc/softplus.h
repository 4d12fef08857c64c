/* log(1 + exp(x)), as exp in common.h our own. exp is in float; the logarithm in double is 2 atanh
 * of a quotient, by its series. */
#ifndef TRITPACK_SOFTPLUS_H
#define TRITPACK_SOFTPLUS_H

#include "kernels/common.h"

static inline float tp_softplus(float x) {
    if (!(x <= 20.0f)) return x; /* so does torch; and NaN */
    const double e = (double)tp_exp(x);
    double m = 1.0 + e, s = e / (2.0 + e), powers = 0;
    if (m > 1.5) { /* m = 2^powers times a number from 0.75 to 1.5 */
        uint64_t bits;
        memcpy(&bits, &m, 8);
        powers = (double)(int64_t)(bits >> 52) - 1023.0;
        bits = (bits & 0xfffffffffffffu) | UINT64_C(1023) << 52;
        memcpy(&m, &bits, 8);
        if (m > 1.5) m *= 0.5, powers += 1.0;
        s = (m - 1.0) / (m + 1.0);
    }
    const double z = s * s;
    double sum = 1.0 / 15.0;
    for (double n = 13.0; n > 0.0; n -= 2.0) sum = sum * z + 1.0 / n;
    return (float)(powers * 0.69314718055994530942 + 2.0 * s * sum);
}

#endif
