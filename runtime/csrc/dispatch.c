/* The only file that knows all kernels: one table entry each. A kernel for a new layout or instruction set is its file,
 * its declaration and its entry here. Within an (op, layout) the best one at or below the asked ISA is taken. */
#if defined(__AVX__) || defined(__AVX2__) || defined(__AVX512F__)
#error "dispatch.c decides what this CPU may run, so it must run everywhere: give ISA flags to kernel files only, never -march=native"
#endif

#include <string.h>

#include "internal.h"

/* The instruction sets that an operation has kernels for: the whole ladder of this machine, or what is worth a file. */
#if TP_X86
#ifdef TP_NO_AVXVNNI            /* the assembler does not know it */
#define AVXVNNI_TOO(X, ...)
#else
#define AVXVNNI_TOO(X, ...) X(__VA_ARGS__, AVXVNNI, avxvnni)
#endif
#define LADDER(X, ...) X(__VA_ARGS__, SCALAR, scalar) X(__VA_ARGS__, SSSE3, ssse3) X(__VA_ARGS__, AVX2, avx2) AVXVNNI_TOO(X, __VA_ARGS__) \
    X(__VA_ARGS__, AVX512VNNI, avx512vnni)
#define STEPS(X, ...) X(__VA_ARGS__, SCALAR, scalar) X(__VA_ARGS__, AVX2, avx2) X(__VA_ARGS__, AVX512VNNI, avx512vnni)
#define PRODUCTS LADDER
#define DOT_RATES(X, ...) STEPS(X, __VA_ARGS__) AVXVNNI_TOO(X, __VA_ARGS__)
#define LOOK_UPS(X, ...) X(__VA_ARGS__, SCALAR, scalar) X(__VA_ARGS__, AVX2, avx2)
#define PANELS_OF_T158(X, ...) X(__VA_ARGS__, SCALAR, scalar) X(__VA_ARGS__, AVX512VNNI, avx512vnni)
#define FLOATS STEPS
#elif TP_ARM
#define LADDER(X, ...) X(__VA_ARGS__, SCALAR, scalar) X(__VA_ARGS__, NEON, neon) X(__VA_ARGS__, DOTPROD, dotprod) X(__VA_ARGS__, I8MM, i8mm)
#define STEPS(X, ...) X(__VA_ARGS__, SCALAR, scalar) X(__VA_ARGS__, NEON, neon)
#define PRODUCTS LADDER
#define DOT_RATES(X, ...) X(__VA_ARGS__, SCALAR, scalar) X(__VA_ARGS__, DOTPROD, dotprod) X(__VA_ARGS__, I8MM, i8mm)
#define LOOK_UPS(X, ...) X(__VA_ARGS__, SCALAR, scalar)
#define PANELS_OF_T158(X, ...) X(__VA_ARGS__, SCALAR, scalar)
#define FLOATS STEPS
#elif TP_WASM
#define LADDER(X, ...) X(__VA_ARGS__, SCALAR, scalar) X(__VA_ARGS__, SIMD128, simd128)
#define STEPS LADDER
#define PRODUCTS LADDER
#define DOT_RATES(X, ...) X(__VA_ARGS__, SCALAR, scalar)
#define LOOK_UPS(X, ...) X(__VA_ARGS__, SCALAR, scalar)
#define PANELS_OF_T158(X, ...) X(__VA_ARGS__, SCALAR, scalar)
#define FLOATS LADDER
#else
#define LADDER(X, ...) X(__VA_ARGS__, SCALAR, scalar)
#define STEPS LADDER
#define PRODUCTS LADDER
#define DOT_RATES LADDER
#define LOOK_UPS LADDER
#define PANELS_OF_T158 LADDER
#define FLOATS LADDER
#endif

/* Layouts of ternary tensors that have a matvec kernel of their own, and all of them. */
#define LINED_EVERYWHERE(X) X(I2_S, i2_s) X(T158, t158) X(U8, u8)
#define LINED(X) \
    X(TQ1_0, tq1_0) X(TQ2_0, tq2_0) X(Q2_0, q2_0) X(PTQ1_0, ptq1_0) X(PQ2_0, pq2_0) X(IQ1_BN, iq1_bn) X(IQ2_BN, iq2_bn) X(IQ2_BN_R4, iq2_bn_r4)
/* By table look-up, which wants bytes and no products. */
#define LOOKED_UP(X) X(TL2, tl2)
#define PACKED(X) \
    X(I2_S, i2_s) X(T2, t2) X(T158, t158) X(TL1, tl1) X(TL2, tl2) X(TQ1_0, tq1_0) X(TQ2_0, tq2_0) X(Q2_0, q2_0) X(PTQ1_0, ptq1_0) \
    X(PQ2_0, pq2_0) X(IQ1_BN, iq1_bn) X(IQ2_BN, iq2_bn) X(IQ2_BN_R4, iq2_bn_r4) X(HF_U8, hf_u8) X(MLX2, mlx2)

/* Of those, whose unpacking gains by wider words. */
#define UNPACKED_WIDE(X) X(T158, t158) X(TQ1_0, tq1_0)

#define FLOAT_OPS(X) \
    FLOATS(X, HEAD, head, F32, f32, head) FLOATS(X, HEAD, head, F16, f16, head) FLOATS(X, HEAD, head, BF16, bf16, head) \
    FLOATS(X, HEAD, head, Q8_0, q8_0, head) FLOATS(X, HEAD, head, Q6_K, q6_k, head) FLOATS(X, HEAD, head, Q4_K, q4_k, head) \
    FLOATS(X, QUANTIZE, quantize, F32, f32, quantize) FLOATS(X, RESCALE, rescale, F32, f32, rescale) \
    FLOATS(X, RMSNORM, rmsnorm, F32, f32, rmsnorm) FLOATS(X, GLU, glu, F32, f32, glu) \
    FLOATS(X, DECODE, decode, I2_S, i2_s, decode) FLOATS(X, DECODE, decode, U8, u8, decode) \
    FLOATS(X, FLOATVEC, floatvec, I2_S, i2_s, floatvec) FLOATS(X, FLOATVEC, floatvec, U8, u8, floatvec) \
    FLOATS(X, ATTENTION, attention, F32, f32, attention) FLOATS(X, ATTENTION16, attention16, F32, f32, attention) \
    FLOATS(X, CACHE16, cache16, F32, f32, cache16) \
    FLOATS(X, READ, read, U8, u8, limit) DOT_RATES(X, DOTS, dots, U8, u8, limit)

#define DECLARE_TWINS(LAYOUT, l) \
    tp_unpack_fn unpack_##l##_scalar; \
    tp_pack_fn pack_##l##_scalar;
#define DECLARE_LINEAR(op, l, ISA, i) tp_##op##_fn op##_##l##_##i;
#define DECLARE_FLOAT(OP, o, LAYOUT, l, member, ISA, i) tp_##member##_fn o##_##l##_##i;
#define DECLARE_EVERYWHERE(LAYOUT, l) LADDER(DECLARE_LINEAR, matvec, l)
#define DECLARE_LINED(LAYOUT, l) STEPS(DECLARE_LINEAR, matvec, l)
#define DECLARE_LOOKED_UP(LAYOUT, l) LOOK_UPS(DECLARE_LINEAR, matvec, l)

PACKED(DECLARE_TWINS)
#define DECLARE_WIDE(LAYOUT, l) tp_unpack_fn unpack_##l##_avx2;
UNPACKED_WIDE(DECLARE_WIDE)
LINED_EVERYWHERE(DECLARE_EVERYWHERE)
LINED(DECLARE_LINED)
LOOKED_UP(DECLARE_LOOKED_UP)
PRODUCTS(DECLARE_LINEAR, matmul, i2_s)
PRODUCTS(DECLARE_LINEAR, matmul, u8)
PANELS_OF_T158(DECLARE_LINEAR, matmul, t158)
FLOAT_OPS(DECLARE_FLOAT)
tp_quantize16_fn quantize16_f32_scalar;
tp_rope_fn rope_f32_scalar, ropepairs_f32_scalar;

#define ENTRY(OP, o, LAYOUT, l, ISA, i, ...) \
    {.symbol = #o "_" #l "_" #i, .op = TP_OP_##OP, .layout = TP_LAYOUT_##LAYOUT, .isa = TP_ISA_##ISA, __VA_ARGS__},
#define SCALAR(OP, o, LAYOUT, l, member) ENTRY(OP, o, LAYOUT, l, SCALAR, scalar, .member = o##_##l##_scalar)
#define TWINS(LAYOUT, l) SCALAR(UNPACK, unpack, LAYOUT, l, unpack) SCALAR(PACK, pack, LAYOUT, l, pack)
#define WIDE(LAYOUT, l) ENTRY(UNPACK, unpack, LAYOUT, l, AVX2, avx2, .unpack = unpack_##l##_avx2)
#define MATVEC(LAYOUT, l, ISA, i) ENTRY(MATVEC, matvec, LAYOUT, l, ISA, i, .matvec = matvec_##l##_##i, .activation_order = &tp_matvec_order[TP_LAYOUT_##LAYOUT])
#define MATVEC_EVERYWHERE(LAYOUT, l) LADDER(MATVEC, LAYOUT, l)
#define MATVEC_LINED(LAYOUT, l) STEPS(MATVEC, LAYOUT, l)
#define MATVEC_LOOKED_UP(LAYOUT, l) LOOK_UPS(MATVEC, LAYOUT, l)
#define FLOAT(OP, o, LAYOUT, l, member, ISA, i) ENTRY(OP, o, LAYOUT, l, ISA, i, .member = o##_##l##_##i)

/* How the matrix product of an instruction set takes its operands: activations in tiles, weights in panels of so many rows. */
#define MATMUL_SCALAR .panel_rows = 1      /* that of T158; the others unpack nothing */
#define MATMUL_SSSE3 .activation_order = &tp_tiles4, .panel_rows = 16
#define MATMUL_AVX2 .activation_order = &tp_tiles4, .panel_rows = 16
#define MATMUL_AVXVNNI .activation_order = &tp_tiles4, .panel_rows = 16
#define MATMUL_AVX512VNNI .activation_order = &tp_tiles12, .panel_rows = 32
#define MATMUL_NEON MATMUL_SSSE3
#define MATMUL_DOTPROD MATMUL_SSSE3
#define MATMUL_I8MM .activation_order = &tp_tiles8_by_8, .panel_rows = 16
#define MATMUL_SIMD128 MATMUL_SSSE3
#define MATMUL(LAYOUT, l, ISA, i) ENTRY(MATMUL, matmul, LAYOUT, l, ISA, i, .matmul = matmul_##l##_##i, MATMUL_##ISA)

static const tp_kernel kernels[] = {
    LINED_EVERYWHERE(MATVEC_EVERYWHERE)
    LINED(MATVEC_LINED)
    LOOKED_UP(MATVEC_LOOKED_UP)
    PRODUCTS(MATMUL, I2_S, i2_s)
    PRODUCTS(MATMUL, U8, u8)
    PACKED(TWINS)
    PANELS_OF_T158(MATMUL, T158, t158)
#if TP_X86
    UNPACKED_WIDE(WIDE)
#endif
    FLOAT_OPS(FLOAT)
    SCALAR(QUANTIZE16, quantize16, F32, f32, quantize16)    /* once a token: scalar is fast enough */
    SCALAR(ROPE, rope, F32, f32, rope)                      /* elementwise: the compiler vectorises it */
    SCALAR(ROPEPAIRS, ropepairs, F32, f32, rope)
};

static const char *const op_names[TP_OP_COUNT] = {"matvec", "matmul", "unpack", "pack", "decode", "floatvec", "head", "quantize", "quantize16",
                                                  "rescale", "rmsnorm", "glu", "rope", "ropepairs", "attention", "attention16", "cache16",
                                                  "read", "dots"};

int tp_kernel_count(void) { return (int)(sizeof kernels / sizeof *kernels); }

const tp_kernel *tp_kernel_at(int index) { return index >= 0 && index < tp_kernel_count() ? &kernels[index] : NULL; }

int tp_kernel_index(const tp_kernel *k) { return (int)(k - kernels); }

const tp_kernel *tp_kernel_best(tp_op op, int layout, int isa) {
    const tp_kernel *best = NULL;
    for (int i = 0; i < tp_kernel_count(); i++) {
        const tp_kernel *k = &kernels[i];
        if (k->op == op && k->layout == layout && k->isa <= isa && (!best || k->isa > best->isa) && tp_cpu_has(k->isa)) best = k;
    }
    return best;
}

int tp_kernel_info(int index, tp_kernel_desc *out) {
    const tp_kernel *k = tp_kernel_at(index);
    if (!k || !out) return TP_ERR_ARGUMENT;
    *out = (tp_kernel_desc){k->symbol, op_names[k->op], tp_layout_name(k->layout), tp_isa_name(k->isa), tp_cpu_has(k->isa)};
    return TP_OK;
}
