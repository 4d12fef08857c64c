/* The only file that knows all kernels: one table entry each. A kernel for a new layout or instruction set is its file,
 * its declaration and its entry here. Within an (op, layout) the best one at or below the asked ISA is taken. */
#if defined(__AVX__) || defined(__AVX2__) || defined(__AVX512F__)
#error "dispatch.c decides what this CPU may run, so it must run everywhere: give ISA flags to kernel files only, never -march=native"
#endif

#include <string.h>

#include "internal.h"

/* ---- orders of int8 activations ---- */

static size_t lines_bytes(int64_t n, int64_t cols) { return (size_t)(n * ((cols + 255) / 256) * 256); }

/* One token: [line of 256][field of 4][64]: 32 columns of the even block of 128, 32 of the odd. */
static void lines_fill(const int8_t *q, int64_t n, int64_t cols, int64_t piece, void *dst) {
    (void)n;
    const int8_t *from = q + piece * cols;
    int8_t *to = (int8_t *)dst + piece * (int64_t)lines_bytes(1, cols);
    for (int64_t c = 0; c < cols; c += 256)
        for (int f = 0; f < 4; f++, to += 64) {
            memcpy(to, from + c + 32 * f, 32);
            if (c + 128 < cols) memcpy(to + 32, from + c + 128 + 32 * f, 32);
            else memset(to + 32, 0, 32);
        }
}

/* Tiles of `width` tokens, the last cut to a multiple of 4: [cols / 4][tokens][4 columns]. */
static size_t tiles_bytes(int64_t n, int64_t cols) { return (size_t)((n + 3) / 4 * 4 * cols); }

static void tiles_fill(const int8_t *q, int64_t n, int64_t cols, int64_t piece, void *dst, int64_t width) {
    const int64_t first = piece * width, here = n - first < width ? n - first : width, padded = (here + 3) / 4 * 4;
    int8_t *to = (int8_t *)dst + first * cols;
    for (int64_t t = 0; t < padded; t++)
        for (int64_t k = 0; k < cols / 4; k++) {
            if (t < here) memcpy(to + (k * padded + t) * 4, q + (first + t) * cols + 4 * k, 4);
            else memset(to + (k * padded + t) * 4, 0, 4);
        }
}
static void tiles12_fill(const int8_t *q, int64_t n, int64_t cols, int64_t piece, void *dst) { tiles_fill(q, n, cols, piece, dst, 12); }
static void tiles4_fill(const int8_t *q, int64_t n, int64_t cols, int64_t piece, void *dst) { tiles_fill(q, n, cols, piece, dst, 4); }

__attribute__((unused)) static const tp_arrangement lines = {1, lines_bytes, lines_fill};
__attribute__((unused)) static const tp_arrangement tiles12 = {12, tiles_bytes, tiles12_fill};
__attribute__((unused)) static const tp_arrangement tiles4 = {4, tiles_bytes, tiles4_fill};

/* ---- kernels ---- */

#if TP_X86
#define DECLARE(type, name) type name##_scalar, name##_avx2, name##_avx512vnni
#else
#define DECLARE(type, name) type name##_scalar
#endif

DECLARE(tp_linear_fn, matvec_i2_s);
DECLARE(tp_linear_fn, matmul_i2_s);
DECLARE(tp_linear_fn, matvec_u8);
DECLARE(tp_linear_fn, matmul_u8);
DECLARE(tp_head_fn, head_f32);
DECLARE(tp_head_fn, head_f16);
DECLARE(tp_head_fn, head_bf16);
DECLARE(tp_head_fn, head_q8_0);
DECLARE(tp_head_fn, head_q6_k);
DECLARE(tp_head_fn, head_q4_k);
DECLARE(tp_quantize_fn, quantize_f32);
tp_quantize16_fn quantize16_f32_scalar;
DECLARE(tp_decode_fn, decode_i2_s);
DECLARE(tp_decode_fn, decode_u8);
DECLARE(tp_rmsnorm_fn, rmsnorm_f32);
DECLARE(tp_glu_fn, glu_f32);
tp_rope_fn rope_f32_scalar, ropepairs_f32_scalar;
DECLARE(tp_attention_fn, attention_f32);
DECLARE(tp_attention_fn, attention_f16);

#define ENTRY(OP, o, LAYOUT, l, ISA, i, ...) \
    {.symbol = #o "_" #l "_" #i, .op = TP_OP_##OP, .layout = TP_LAYOUT_##LAYOUT, .isa = TP_ISA_##ISA, __VA_ARGS__}
#define SCALAR(OP, o, LAYOUT, l, member) ENTRY(OP, o, LAYOUT, l, SCALAR, scalar, .member = o##_##l##_scalar)
#if TP_X86
/* One kernel for each of our instruction sets, called through `member`. */
#define LADDER(OP, o, LAYOUT, l, member) \
    SCALAR(OP, o, LAYOUT, l, member), ENTRY(OP, o, LAYOUT, l, AVX2, avx2, .member = o##_##l##_avx2), \
        ENTRY(OP, o, LAYOUT, l, AVX512VNNI, avx512vnni, .member = o##_##l##_avx512vnni)
#else
#define LADDER(OP, o, LAYOUT, l, member) SCALAR(OP, o, LAYOUT, l, member)
#endif

/* Layouts of ternary tensors, for what every one of them has. */
#define PACKED(X) \
    X(I2_S, i2_s) X(T2, t2) X(T158, t158) X(TL1, tl1) X(TL2, tl2) X(TQ1_0, tq1_0) X(TQ2_0, tq2_0) X(Q2_0, q2_0) X(PTQ1_0, ptq1_0) \
    X(PQ2_0, pq2_0) X(IQ1_BN, iq1_bn) X(IQ2_BN, iq2_bn) X(IQ2_BN_R4, iq2_bn_r4) X(HF_U8, hf_u8) X(MLX2, mlx2)
#define DECLARE_TWINS(LAYOUT, l) \
    tp_unpack_fn unpack_##l##_scalar; \
    tp_pack_fn pack_##l##_scalar;
#define TWINS(LAYOUT, l) SCALAR(UNPACK, unpack, LAYOUT, l, unpack), SCALAR(PACK, pack, LAYOUT, l, pack),

PACKED(DECLARE_TWINS)

static const tp_kernel kernels[] = {
    SCALAR(MATVEC, matvec, I2_S, i2_s, linear),
    SCALAR(MATMUL, matmul, I2_S, i2_s, linear),
    SCALAR(MATVEC, matvec, U8, u8, linear),
    SCALAR(MATMUL, matmul, U8, u8, linear),
#if TP_X86
    ENTRY(MATVEC, matvec, I2_S, i2_s, AVX2, avx2, .linear = matvec_i2_s_avx2),
    ENTRY(MATVEC, matvec, I2_S, i2_s, AVX512VNNI, avx512vnni, .linear = matvec_i2_s_avx512vnni, .arrangement = &lines),
    ENTRY(MATMUL, matmul, I2_S, i2_s, AVX2, avx2, .linear = matmul_i2_s_avx2, .arrangement = &tiles4, .panel_rows = 16),
    ENTRY(MATMUL, matmul, I2_S, i2_s, AVX512VNNI, avx512vnni, .linear = matmul_i2_s_avx512vnni, .arrangement = &tiles12, .panel_rows = 32),
    ENTRY(MATVEC, matvec, U8, u8, AVX2, avx2, .linear = matvec_u8_avx2),
    ENTRY(MATVEC, matvec, U8, u8, AVX512VNNI, avx512vnni, .linear = matvec_u8_avx512vnni),
    ENTRY(MATMUL, matmul, U8, u8, AVX2, avx2, .linear = matmul_u8_avx2, .arrangement = &tiles4, .panel_rows = 16),
    ENTRY(MATMUL, matmul, U8, u8, AVX512VNNI, avx512vnni, .linear = matmul_u8_avx512vnni, .arrangement = &tiles12, .panel_rows = 32),
#endif
    PACKED(TWINS)                                           /* bytes or small tables: no instruction set of ours is much faster */
    LADDER(HEAD, head, F32, f32, head),
    LADDER(HEAD, head, F16, f16, head),
    LADDER(HEAD, head, BF16, bf16, head),
    LADDER(HEAD, head, Q8_0, q8_0, head),
    LADDER(HEAD, head, Q6_K, q6_k, head),
    LADDER(HEAD, head, Q4_K, q4_k, head),
    LADDER(QUANTIZE, quantize, F32, f32, quantize),
    SCALAR(QUANTIZE16, quantize16, F32, f32, quantize16),   /* once a token: scalar is fast enough */
    LADDER(DECODE, decode, I2_S, i2_s, decode),
    LADDER(DECODE, decode, U8, u8, decode),
    LADDER(RMSNORM, rmsnorm, F32, f32, rmsnorm),
    LADDER(GLU, glu, F32, f32, glu),
    SCALAR(ROPE, rope, F32, f32, rope),                     /* elementwise: the compiler vectorises it */
    SCALAR(ROPEPAIRS, ropepairs, F32, f32, rope),
    LADDER(ATTENTION, attention, F32, f32, attention),
    LADDER(ATTENTION, attention, F16, f16, attention),
};

static const char *const op_names[TP_OP_COUNT] = {"matvec", "matmul", "unpack", "pack", "decode", "head", "quantize", "quantize16",
                                                  "rmsnorm", "glu", "rope", "ropepairs", "attention"};

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
