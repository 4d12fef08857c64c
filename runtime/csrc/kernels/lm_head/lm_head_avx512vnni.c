/* The output head, for AVX-512 VNNI; its quantised weights are in lm_head_q*_avx512vnni.c. */

#define KERNEL lm_head_f32_avx512vnni
#define WEIGHT float
#define LOAD lanes_load
#define LOAD_N lanes_load_n
#include "lm_head_float.inc"

#define KERNEL lm_head_f16_avx512vnni
#define WEIGHT uint16_t
#define LOAD lanes_load_f16
#define LOAD_N lanes_load_f16_n
#include "lm_head_float.inc"

#define KERNEL lm_head_bf16_avx512vnni
#define WEIGHT uint16_t
#define LOAD lanes_load_bf16
#define LOAD_N lanes_load_bf16_n
#include "lm_head_float.inc"
