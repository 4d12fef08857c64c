/* The table of all kernels, made of kernels/kernels.def, layouts.def and operations.def. A new
 * instruction set gets its entries in the three lists below. */
#if defined(__AVX__) || defined(__AVX2__) || defined(__AVX512F__)
#error "dispatch.c must run on every CPU: give ISA flags to kernel files only, never -march=native"
#endif

#include <string.h>

#include "internal.h"

#if TP_X86
#define X86(...) __VA_ARGS__
#else
#define X86(...)
#endif
#if TP_X86 && !defined(TP_NO_AVXVNNI) /* the assembler knows it */
#define AVXVNNI(...) __VA_ARGS__
#else
#define AVXVNNI(...)
#endif
#if TP_ARM
#define ARM(...) __VA_ARGS__
#else
#define ARM(...)
#endif
#if TP_WASM
#define WASM(...) __VA_ARGS__
#else
#define WASM(...)
#endif

/* The instruction sets: whether this library has their kernels, and how their matrix products take
 * activations (in tiles) and weights (in panels of so many rows). */
#define IF_scalar(...) __VA_ARGS__
#define IF_ssse3(...) X86(__VA_ARGS__)
#define IF_avx2(...) X86(__VA_ARGS__)
#define IF_avxvnni(...) AVXVNNI(__VA_ARGS__)
#define IF_avx512vnni(...) X86(__VA_ARGS__)
#define IF_neon(...) ARM(__VA_ARGS__)
#define IF_dotprod(...) ARM(__VA_ARGS__)
#define IF_i8mm(...) ARM(__VA_ARGS__)
#define IF_simd128(...) WASM(__VA_ARGS__)

#define TILES_scalar NULL
#define TILES_ssse3 &tp_tiles4
#define TILES_avx2 &tp_tiles4
#define TILES_avxvnni &tp_tiles4
#define TILES_avx512vnni &tp_tiles12
#define TILES_neon &tp_tiles4
#define TILES_dotprod &tp_tiles4
#define TILES_i8mm &tp_tiles8_by_8
#define TILES_simd128 &tp_tiles4

/* Tokens up to which matvec is faster than matmul, and for layouts whose kernels go from token to
 * token. */
enum {
    FEW_scalar = 4,
    FEW_ssse3 = 12,
    FEW_avx2 = 12,
    FEW_avxvnni = 16,
    FEW_avx512vnni = 16,
    FEW_neon = 1 << 20, /* matvec adds products in 16 bits, and needs half as many instructions */
    FEW_dotprod = 16,
    FEW_i8mm = 16,
    FEW_simd128 = 16,
    FEW_ONE_BY_ONE = 4,
};
#define FEW(l, i) \
    (LAYOUT_##l == LAYOUT_tl2 || LAYOUT_##l == LAYOUT_iq2_bn_r4 ? FEW_ONE_BY_ONE : FEW_##i)

enum {
    PANEL_scalar = 1, /* that of T158; the others unpack nothing */
    PANEL_ssse3 = 16,
    PANEL_avx2 = 16,
    PANEL_avxvnni = 16,
    PANEL_avx512vnni = 32,
    PANEL_neon = 16,
    PANEL_dotprod = 16,
    PANEL_i8mm = 16,
    PANEL_simd128 = 16,
};

/* The words of kernels.def. */
#define TP_ISA(ID, name) ISA_##name = TP_ISA_##ID,
enum {
#include "include/isas.def"
};
#undef TP_ISA
#define TP_LAYOUT(ID, name, ...) LAYOUT_##name = TP_LAYOUT_##ID,
enum {
#include "include/layouts.def"
};
#undef TP_LAYOUT
#define OP(name, NAME) OP_##name = TP_OP_##NAME,
enum {
#include "kernels/operations.def"
};
#undef OP

#define K(op, layout, isa) IF_##isa(tp_##op##_fn op##_##layout##_##isa;)
#include "kernels/kernels.def"
#undef K

#define OP_ID(o) ((tp_op)OP_##o)
#define ORDER(o, l, i) \
    (OP_ID(o) == TP_OP_MATVEC   ? &tp_matvec_order[LAYOUT_##l] \
     : OP_ID(o) == TP_OP_MATMUL ? TILES_##i \
                                : NULL)
#define K(o, l, i) \
    IF_##i({.symbol = #o "_" #l "_" #i, \
            .op = OP_ID(o), \
            .layout = LAYOUT_##l, \
            .isa = ISA_##i, \
            .o = o##_##l##_##i, \
            .activation_order = ORDER(o, l, i), \
            .few_tokens = OP_ID(o) == TP_OP_MATVEC ? FEW(l, i) : 0, \
            .panel_rows = OP_ID(o) == TP_OP_MATMUL ? PANEL_##i : 0}, )
static const tp_kernel kernels[] = {
#include "kernels/kernels.def"
};
#undef K

#define OP(name, NAME) #name,
static const char *const op_names[TP_OP_COUNT] = {
#include "kernels/operations.def"
};
#undef OP

int tp_kernel_count(void) { return (int)(sizeof kernels / sizeof *kernels); }

const tp_kernel *tp_kernel_at(int index) {
    return index >= 0 && index < tp_kernel_count() ? &kernels[index] : NULL;
}

int tp_kernel_index(const tp_kernel *k) { return (int)(k - kernels); }

const tp_kernel *tp_kernel_best(tp_op op, int layout, int isa) {
    const tp_kernel *best = NULL;
    for (int i = 0; i < tp_kernel_count(); i++) {
        const tp_kernel *k = &kernels[i];
        if (k->op == op && k->layout == layout && k->isa <= isa && (!best || k->isa > best->isa) &&
            tp_cpu_has(k->isa))
            best = k;
    }
    return best;
}

int tp_kernel_info(int index, tp_kernel_desc *out) {
    const tp_kernel *k = tp_kernel_at(index);
    if (!k || !out) return TP_ERR_ARGUMENT;
    *out = (tp_kernel_desc){k->symbol, op_names[k->op], tp_layout_name(k->layout),
                            tp_isa_name(k->isa), tp_cpu_has(k->isa)};
    return TP_OK;
}
