/* sin and cos for RoPE tables. They are our own, since every libm rounds differently. In double,
 * a two-part pi/2 reduces the range, then the usual polynomials on [-pi/4, pi/4] follow; the
 * result is rounded to float. */
#ifndef TRITPACK_ANGLES_H
#define TRITPACK_ANGLES_H

#include <stdint.h>

static inline void tp_cos_sin(float angle, float *cosine, float *sine) {
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer */
    const double x = (double)angle;
    if (!(x > -1e9 && x < 1e9)) { /* no position gets here, and NaN has no quadrant */
        *cosine = 1.0f;
        *sine = 0.0f;
        return;
    }
    const double k = (x * 0.63661977236758134308 + magic) - magic;
    const double r = (x - k * 1.57079632673412561417) - k * 6.07710050650619224932e-11;
    const double z = r * r;
    double s = 1.58969099521155010221e-10;
    s = s * z + -2.50507602534068634195e-08;
    s = s * z + 2.75573137070700676789e-06;
    s = s * z + -1.98412698298579493134e-04;
    s = s * z + 8.33333333332248946124e-03;
    s = s * z + -1.66666666666666324348e-01;
    s = r + r * (z * s);
    double c = -1.13596475577881948265e-11;
    c = c * z + 2.08757232129817482790e-09;
    c = c * z + -2.75573143513906633035e-07;
    c = c * z + 2.48015872894767294178e-05;
    c = c * z + -1.38888888888741095749e-03;
    c = c * z + 4.16666666666666019037e-02;
    c = (1.0 - 0.5 * z) + (z * z) * c;
    switch ((int64_t)k & 3) {
        case 0: *cosine = (float)c, *sine = (float)s; break;
        case 1: *cosine = (float)-s, *sine = (float)c; break;
        case 2: *cosine = (float)-c, *sine = (float)-s; break;
        default: *cosine = (float)s, *sine = (float)-c; break;
    }
}

#endif
