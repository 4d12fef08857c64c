/* One lane in the words of lanes16.h, in plain C, for algorithms that are written once. */
#ifndef TRITPACK_ONE_LANE_H
#define TRITPACK_ONE_LANE_H

#include "../common.h"

#define LANES_NATIVE 1
typedef float vf;
typedef int vmask;

TP_INLINE vf vf_splat(float x) { return x; }
TP_INLINE vf vf_load(const float *p) { return *p; }
TP_INLINE void vf_store(float *p, vf a) { *p = a; }
TP_INLINE vmask vf_less(vf a, vf b) { return a < b; }
TP_INLINE vf vf_pick(vmask mask, vf yes, vf no) { return mask ? yes : no; }
TP_INLINE vf vf_max(vf a, vf b) { return a > b ? a : b; }
TP_INLINE vf vf_min(vf a, vf b) { return a < b ? a : b; }
TP_INLINE vf vf_abs(vf a) { return tp_bits_float(tp_float_bits(a) & 0x7fffffffu); }

#endif
