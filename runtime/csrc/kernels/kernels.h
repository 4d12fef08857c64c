/* The calling convention of every kernel. Kernels allocate nothing, log nothing and keep no
 * state. */
#ifndef TRITPACK_KERNELS_H
#define TRITPACK_KERNELS_H

#include "../include/tritpack.h"

/* Whether kernels of x86, ARM or WebAssembly are built. -DTP_SCALAR_ONLY with `make
 * TP_ISAS=scalar` gives what other machines get, for tests. */
#if defined(__x86_64__) && !defined(TP_SCALAR_ONLY)
#define TP_X86 1
#else
#define TP_X86 0
#endif
#if defined(__aarch64__) && !defined(TP_SCALAR_ONLY)
#define TP_ARM 1
#else
#define TP_ARM 0
#endif
#if defined(__wasm__) && !defined(TP_SCALAR_ONLY)
#define TP_WASM 1
#else
#define TP_WASM 0
#endif

/* Integer product of rows row0 .. row1-1 by one token or a few: out[t * ld + r - row0] = sum over k
 * of code[r][k] * q[t][k] - sum_q[t], exact. */
typedef void tp_matvec_fn(const tp_tensor *w /* (rows, cols) */,
                          const void *acts /* (n) x (cols) int8, in the kernel's arrangement, */,
                          int64_t step /* bytes from one token to the next, a multiple of 64 */,
                          const int32_t *sum_q /* (n) */, int64_t n, int64_t row0, int64_t row1,
                          int32_t *out /* (n, ld) */, int64_t ld);

/* Memory that will be read after this product. prefetch_share in stream.h asks for it. */
typedef struct tp_prefetch {
    uintptr_t from;
    uint64_t bytes;
} tp_prefetch; /* from is a number: it may lie past a buffer's end */

/* The same by many tokens, in tiles of them. `next` is asked for piece by piece meanwhile.
 * padded: cols rounded up to 128. */
typedef void tp_matmul_fn(const tp_tensor *w /* (rows, cols) */,
                          const void *acts /* (n, padded) int8, in the kernel's arrangement */,
                          const int32_t *sum_q /* (n) */, int64_t n, int64_t row0, int64_t row1,
                          int32_t *out /* (n, ld) */, int64_t ld,
                          void *scratch /* panel_rows * padded bytes, 64-byte aligned */,
                          tp_prefetch next);

/* Codes of rows row0 .. row1-1, one a byte: 0, 1, 2 for weights -1, 0, +1, and 3 for a code of 3
 * or a nibble that means nothing (bytes of trits that no packer writes give some codes:
 * formats/layouts refuses them). */
typedef void tp_unpack_fn(
    const tp_tensor *w /* (rows, cols), data: the body, without header and trailer */, int64_t row0,
    int64_t row1, uint8_t *out /* (row1 - row0, ld) */, int64_t ld);

/* The other way, the whole tensor at once: weights -1, 0, +1 into a body of zeros. Scales are
 * left alone. */
typedef void tp_pack_fn(const int8_t *codes /* (rows, cols) */,
                        const tp_tensor *w /* its shape; data is not used */, uint8_t *body);

/* One row of ternary weights as floats: out[c] = (code[c] - 1) * scale of the block of columns
 * that holds c. */
typedef void tp_dequantize_fn(const uint8_t *codes /* one row */, int64_t cols,
                              const float *scales /* (col_blocks) */, int64_t col_blocks,
                              float *out /* (cols) */);

/* Ternary rows, ld bytes apart, by the floats of one token: out[r] = sum over c, in the order of
 * a float lm_head, of ((code[r][c] - 1) * scale of r and of the block of columns that holds c) *
 * x[c]. A block is a multiple of 16 columns of plain codes, of 128 of I2_S. The scales of
 * PQ2_0 and PTQ1_0 are read where they stand with the codes, and `scales` is one that multiplies
 * all. */
typedef void tp_matvec_f32_fn(const uint8_t *codes, int64_t ld, int64_t rows, int64_t cols,
                              const float *scales /* (rows, col_blocks), or (1) */,
                              int64_t col_blocks, const float *x /* (cols) */,
                              float *out /* (rows) */);

/* Activations of the output head. Float layouts read x; q8_0, q6_k and q4_k read 16-bit
 * integers: element e of a 64-group g lies at q[64 g + e / 2] if e is even, q[64 g + 32 + e / 2]
 * if odd (zero beyond cols). */
typedef struct tp_lm_head_acts {
    const float *x; /* (n, cols) */
    int16_t *q;     /* (n, padded) padded = cols rounded up to 64 */
    float *step;    /* (n, blocks) one per 256 columns, blocks = ceil(cols / 256): x ~ q * step */
    int32_t
        *bias; /* (n, padded / 4) -32 * (sum of the 4 elements 4 i .. 4 i + 3), for q6_k and q4_k */
    int64_t padded, blocks;
} tp_lm_head_acts;

/* out[t * ld + r - row0] = dot(w[r], x[t]) for rows row0 .. row1-1. */
typedef void tp_lm_head_fn(const tp_tensor *w /* (rows, cols) */, const tp_lm_head_acts *x,
                           int64_t n, int64_t row0, int64_t row1, float *out /* (n, ld) */,
                           int64_t ld);

typedef void tp_quantize_fn(const float *x /* (cols) */, int64_t cols, int8_t *q /* (cols) */,
                            float *s /* (1) */, int32_t *sum_q /* (1) */);
typedef void tp_quantize16_fn(const float *x /* (cols) */, int64_t cols, int16_t *q /* (padded) */,
                              float *step /* (blocks) */, int32_t *bias /* (padded / 4) */);
typedef void tp_rmsnorm_fn(const float *x /* (cols) */, const float *w /* (cols) */, int64_t cols,
                           float eps, float *y /* (cols), may be x */);
/* Conversion. n floats; types of blocks take whole blocks. */
typedef void tp_widen_fn(const uint16_t *from /* (n) */, int64_t n, float *to /* (n) */);
enum { TP_ENCODE_ROUNDED = 1, TP_ENCODE_OVERFLOW = 2, TP_ENCODE_NOT_FINITE = 4 };
/* Returns what of these it met. After the last two the output is undefined. Types of blocks need
 * not report ROUNDED. */
typedef unsigned tp_encode_fn(const float *x /* (n) */, int64_t n, void *out);
/* lanes[i mod 16] += |x[i]|, in order of i. */
typedef void tp_abs_sum_fn(const float *x /* (n) */, int64_t n, double *lanes /* (16) */);
typedef void tp_absmean_fn(const float *x /* (n) */, int64_t n, float reciprocal,
                           int8_t *codes /* (n) */);
/* The sum of checksum.h over words of 8 bytes, not aligned; `first` is the index of the first. */
typedef uint64_t tp_checksum_fn(const uint8_t *from /* (8 * words) */, uint64_t words,
                                uint64_t first);
/* The machine's roofline, for benchmarks: read_u8 of n bytes (a multiple of 256), dots_u8 and
 * dots_f32 of n rounds. */
typedef uint64_t tp_roofline_fn(const uint8_t *data, int64_t n);
typedef tp_roofline_fn tp_read_fn, tp_dots_fn;
/* y = (sum / s) * scale: an integer product becomes floats. */
typedef void tp_rescale_fn(const int32_t *sums /* (n) */, float s, const float *scales /* (n) */,
                           int64_t n, float *y /* (n) */);
/* y = act(gate) * up. A gate of attention has sigmoid, which is no model's activation. */
enum { TP_ACT_SIGMOID = TP_ACT_GELU_TANH + 1 };
typedef void tp_glu_fn(const float *gate /* (cols) */, const float *up /* (cols) */, int64_t cols,
                       int activation, float *y /* (cols), may be one of them */);
/* Rotates pairs of every head in place: rope (i, i + head_dim/2), ropepairs (2 i, 2 i + 1). */
typedef void tp_rope_fn(float *x /* (heads, head_dim) */, int64_t heads, int64_t head_dim,
                        const float *cos_sin /* (2, head_dim / 2) */);
typedef tp_rope_fn tp_ropepairs_fn;
/* The query heads of some tokens that share keys and values. The first token sees the cached
 * positions skip .. n_pos - 1, at least one, each next token one more. */
typedef struct tp_attention {
    const float *q; /* (tokens, heads, head_dim), the tokens `stride` floats apart */
    float *out;     /* as q */
    /* Blocks of sixteen positions, as many as hold n_pos + tokens - 1: of floats (cache32.h), or of
     * integers (cache16.h) */
    const void *k, *v;
    int64_t tokens, heads, head_dim, stride, n_pos;
    int64_t skip; /* positions of the first block that no token sees */
    float scale;
    int prefetch; /* k and v have not been read lately: ask for them ahead */
    int64_t ld;   /* n_pos + tokens - 1 rounded up to 16, and 16 more if skip > 0; or more */
    float *work;  /* tp_attention_work floats; first the scores (tokens * heads, ld) */
} tp_attention;
static inline int64_t tp_attention_work(int64_t tokens, int64_t heads, int64_t head_dim,
                                        int64_t ld) {
    return tokens * heads * (ld + 2 * head_dim + 64);
}
typedef void tp_attention_fn(const tp_attention *a);
typedef tp_attention_fn tp_attention16_fn;
/* A position of a cache of 16-bit integers: 0 .. 15 of its block (cache16.h). head_dim is even. */
typedef void tp_cache16_fn(const float *k /* (head_dim) */, const float *v /* (head_dim) */,
                           int64_t head_dim, int64_t position, uint8_t *keys, uint8_t *values);

/* The normalised Walsh-Hadamard transform of each block of x * before, times after; a block is a
 * power of two from 2. before, after: signs, or NULL. */
typedef void tp_hadamard_fn(const float *x /* (cols) */, const float *before /* (cols) */,
                            const float *after /* (cols) */, int64_t cols, int64_t block,
                            float *y /* (cols), may be x */);

/* The tokens of a sequence go through a causal convolution of each channel, and silu. Rows of all
 * three stand `stride` floats apart. */
typedef struct tp_conv {
    float *x;             /* (tokens, channels), in place */
    const float *weights; /* (taps, channels), the last of the present token */
    float *window;        /* (taps - 1, channels) the inputs before these tokens, then up to them */
    int64_t tokens, channels, taps, stride;
} tp_conv;
typedef void tp_conv_fn(const tp_conv *a);

/* The tokens of a sequence go through the gated delta rule of a value head, of whose state these
 * are sixteen columns, or the last few. */
typedef struct tp_delta_rule {
    const float *q, *k, *v;    /* (size), (size), (columns) of the first token */
    const float *decay, *beta; /* (1) of the first token */
    float *state;              /* (size, 16) keys by columns */
    float *out;                /* (columns) of the first token */
    int64_t tokens, size, columns;
    int64_t stride, heads, out_stride; /* from token to token: of q, k, v; decay, beta; out */
} tp_delta_rule;
typedef void tp_delta_rule_fn(const tp_delta_rule *a);

#endif
