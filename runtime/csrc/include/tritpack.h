/* tritpack: running BitNet b1.58 models. The public C API.
 *
 * One model, one function: every instruction set, thread count and batch split gives the same bits. Integer parts are
 * exact int32; float dot products use 16 fixed lanes and one fixed tree (kernels/common.h); nothing here uses FMA.
 *
 * A tp_model describes weights that the caller keeps in memory (a mapped file, say) for as long as the model lives.
 * A tp_session holds the KV cache, the work buffers and the threads of one conversation; it is used by one thread at a
 * time, several sessions may share one model; in a child after fork() it works on that one thread. The caller's rounding
 * mode changes nothing and comes back. Functions that can fail return a tp_status: TP_OK (0) or a reason.
 * (a, b) in a comment is the shape of what a pointer points to, row-major. */
#ifndef TRITPACK_H
#define TRITPACK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TP_API __attribute__((visibility("default")))

/* ---- Version and errors ------------------------------------------------------------------------------------- */

/* Raised whenever a struct or a signature below changes; compare with tp_abi_version() after loading. */
#define TP_ABI_VERSION 5
TP_API int tp_abi_version(void);

typedef enum tp_status {
    TP_OK = 0,
    TP_ERR_ARGUMENT = 1,    /* a null pointer, a size out of range, an unaligned tensor */
    TP_ERR_SHAPE = 2,       /* a tensor's shape does not fit the model */
    TP_ERR_LAYOUT = 3,      /* no kernel for this layout in this place */
    TP_ERR_BYTES = 4,       /* nbytes does not match layout and shape */
    TP_ERR_ISA = 5,         /* instruction set unknown or not on this CPU */
    TP_ERR_TOKEN = 6,       /* a token id outside the vocabulary */
    TP_ERR_CONTEXT = 7,     /* more positions than the session's context holds */
    TP_ERR_MEMORY = 8,      /* allocation failed */
    TP_ERR_THREADS = 9      /* a thread could not be started */
} tp_status;

/* One sentence for a status. Never NULL. */
TP_API const char *tp_status_text(int status);

/* The place where the last failing tp_model_new of this thread failed ("layer 3 ffn_down"), or "". Never NULL. */
TP_API const char *tp_error_place(void);

/* ---- CPU, instruction sets, kernels ---------------------------------------------------------------------------- */

/* Ladder order: scalar ssse3 avx2 avxvnni avx512vnni on x86, scalar neon dotprod i8mm on ARM, scalar simd128 on WebAssembly. */
typedef enum tp_isa {
    TP_ISA_SCALAR, TP_ISA_SSSE3, TP_ISA_AVX2, TP_ISA_AVXVNNI, TP_ISA_AVX512VNNI,
    TP_ISA_NEON, TP_ISA_DOTPROD, TP_ISA_I8MM, TP_ISA_SIMD128, TP_ISA_COUNT
} tp_isa;
#define TP_ISA_BEST (-1)

TP_API int tp_isa_count(void);                  /* ids are 0 .. count-1 */
TP_API const char *tp_isa_name(int isa);        /* NULL if isa is no id */
TP_API int tp_isa_from_name(const char *name);  /* id, or -1 */
TP_API int tp_isa_available(int isa);           /* 1 if this CPU and its OS run it */
TP_API int tp_best_isa(void);                   /* the highest available one */
/* Writes "brand; features" and a NUL, cut to size. Returns the length it needed. */
TP_API size_t tp_cpu_description(char *buf /* (size) */, size_t size);

/* Layouts of tensor data. Row-major, rows whole. Those from I2_S on are ternary; formats/README.md has their bytes. */
typedef enum tp_layout {
    TP_LAYOUT_F32, TP_LAYOUT_F16, TP_LAYOUT_BF16,
    TP_LAYOUT_Q8_0,         /* 32 weights: f16 scale, 32 int8. cols % 32 == 0 */
    TP_LAYOUT_Q6_K,         /* 256 weights: ql[128] qh[64] int8 scales[16] f16 d. cols % 256 == 0 */
    TP_LAYOUT_Q4_K,         /* 256 weights: f16 d, f16 dmin, 12 bytes of scales and offsets, codes[128]. cols % 256 == 0 */
    TP_LAYOUT_I2_S,         /* 128 weights in 32 bytes, one f32 scale behind the codes. cols % 128 == 0 */
    TP_LAYOUT_T2,           /* header, f32 scales (row_blocks, col_blocks), then rows of I2_S blocks, padded */
    TP_LAYOUT_T158,         /* header and scales as T2, then five trits a byte */
    TP_LAYOUT_TL1, TP_LAYOUT_TL2,                           /* in tiles (tp_tensor.tile), one f32 scale behind the codes */
    TP_LAYOUT_TQ1_0, TP_LAYOUT_TQ2_0, TP_LAYOUT_Q2_0, TP_LAYOUT_PTQ1_0, TP_LAYOUT_PQ2_0,   /* blocks, each with an f16 scale */
    TP_LAYOUT_IQ1_BN, TP_LAYOUT_IQ2_BN, TP_LAYOUT_IQ2_BN_R4,                               /* rows, each with an f16 or f32 scale */
    TP_LAYOUT_HF_U8, TP_LAYOUT_MLX2,        /* scales are tensors of their own: packed and unpacked, not run */
    TP_LAYOUT_U8,           /* codes 0, 1, 2, one a byte: what unpack kernels give and u8 kernels take; in no file */
    TP_LAYOUT_COUNT
} tp_layout;
TP_API const char *tp_layout_name(int layout);        /* "f32", "i2_s", ...; NULL if layout is no id */
TP_API int tp_layout_from_name(const char *name);     /* id, or -1 */

typedef struct tp_tensor {
    const void *data;       /* (nbytes); NULL = absent. f32 needs 4-byte, f16 and bf16 2-byte alignment */
    int64_t rows, cols;     /* a norm has rows 1 */
    uint64_t nbytes;        /* checked against layout, shape and header; I2_S: rows*cols/4 + 32 */
    int32_t layout;         /* tp_layout */
    int32_t tile[3];        /* TL1, TL2: BM rows by BK columns, blocks of bm rows inside; 0 for others */
    float scale;            /* multiplies the scales of a ternary tensor; finite, >= 0. 1 for most, and for every float tensor */
    int32_t reserved;       /* 0 */
} tp_tensor;

/* Bytes of a tensor (T2, T158: with one scale), or 0 if the layout cannot hold the shape. */
TP_API uint64_t tp_tensor_nbytes(int layout, int64_t rows, int64_t cols);

/* The code bytes of a ternary tensor to weights and back: its body, which is all of it but the header of T2 and T158 and the
 * 32 bytes of scale behind I2_S, TL1 and TL2. Packing writes -1, 0, +1 into a body of zeros and leaves scales alone;
 * unpacking gives +2 for a code of 3 and for nibbles that mean nothing; of trits it judges nothing. TP_ERR_BYTES if body_bytes is not its size. */
TP_API int tp_pack(int layout, const int32_t *tile /* (3), or NULL */, int64_t rows, int64_t cols, const int8_t *codes /* (rows, cols) */,
                   uint8_t *body /* (body_bytes) */, uint64_t body_bytes);
TP_API int tp_unpack(int layout, const int32_t *tile /* (3), or NULL */, int64_t rows, int64_t cols, const uint8_t *body /* (body_bytes) */,
                     uint64_t body_bytes, int8_t *codes /* (rows, cols) */);

typedef struct tp_kernel_desc {
    const char *symbol;     /* = file name: "matvec_i2_s_avx2" */
    const char *op;         /* matvec matmul (int8 activations), unpack, pack, dequantize (ternary row to float), lm_head, quantize, ... */
    const char *layout;     /* of the weights, or of the data worked on */
    const char *isa;
    int32_t available;      /* on this CPU */
} tp_kernel_desc;

TP_API int tp_kernel_count(void);
TP_API int tp_kernel_info(int index, tp_kernel_desc *out /* (1) */);   /* TP_OK or TP_ERR_ARGUMENT */

/* ---- Model ----------------------------------------------------------------------------------------------------- */

typedef enum tp_activation { TP_ACT_RELU2 = 0, TP_ACT_SILU = 1, TP_ACT_GELU_TANH = 2 } tp_activation;

typedef struct tp_hparams {
    int32_t vocab_size, hidden, ffn, layers;
    int32_t heads, kv_heads, head_dim, context_length;
    float norm_eps;
    float projection_norm_eps;      /* of the norms named *_norm_in */
    int32_t activation;             /* tp_activation */
    int32_t int8_activations;       /* 1: what enters a linear is int8 per token; 0: it stays float */
    int32_t rope_interleaved;       /* RoPE pairs: 0 (i, i + head_dim/2), 1 (2 i, 2 i + 1) */
    int32_t window;                 /* positions that sliding layers see */
    float embedding_scale, residual_scale, logit_scale;     /* multipliers; 1 for most models */
    float attention_scale;          /* of q.k; 1 / sqrt(head_dim) for most */
    float rope_factor;              /* multiplies cos and sin of the layers that do not slide (YaRN); 1 for most */
    const float *inv_freq;          /* (head_dim / 2) RoPE angle per position */
    const float *inv_freq_sliding;  /* (head_dim / 2) the same for layers that slide, or NULL */
} tp_hparams;

typedef struct tp_layer {       /* linears (rows, cols) = (out, in), ternary; norms f32 (1, cols), "or absent" = data NULL */
    tp_tensor attn_norm;                                        /* (1, hidden) */
    tp_tensor attn_q;                                           /* (heads * head_dim, hidden) */
    tp_tensor attn_k, attn_v;                                   /* (kv_heads * head_dim, hidden) */
    tp_tensor attn_q_norm, attn_k_norm;                         /* (1, head_dim) of each head before RoPE, or absent */
    tp_tensor attn_sub_norm;                                    /* (1, heads * head_dim) or absent */
    tp_tensor attn_output;                                      /* (hidden, heads * head_dim) */
    tp_tensor post_attention_norm;                              /* (1, hidden) of what is added to the stream, or absent */
    tp_tensor ffn_norm;                                         /* (1, hidden) */
    tp_tensor ffn_gate, ffn_up;                                 /* (ffn, hidden) */
    tp_tensor ffn_sub_norm;                                     /* (1, ffn) or absent */
    tp_tensor ffn_down;                                         /* (hidden, ffn) */
    tp_tensor post_ffw_norm;                                    /* (1, hidden) or absent */
    tp_tensor attn_q_norm_in, attn_k_norm_in, attn_v_norm_in, attn_output_norm_in,  /* (1, cols of the linear) of its own */
        ffn_gate_norm_in, ffn_up_norm_in, ffn_down_norm_in;                         /* input, or absent */
    int32_t slides;                                             /* 1: sees hparams.window positions */
    int32_t reserved;                                           /* 0 */
} tp_layer;

typedef struct tp_model tp_model;
typedef struct tp_session tp_session;

/* Checks every shape and size, then copies the tables (not the weights, which must outlive the model).
 * output may have data NULL: the head is token_embd. Returns TP_OK and *out, or a reason (see tp_error_place). */
TP_API int tp_model_new(const tp_hparams *hparams /* (1) */, const tp_layer *layers /* (hparams->layers) */,
                        const tp_tensor *token_embd /* (1), (vocab_size, hidden), any layout */,
                        const tp_tensor *output_norm /* (1), (1, hidden) f32 */,
                        const tp_tensor *output /* (1), as token_embd; or NULL */, tp_model **out /* (1) */);
TP_API void tp_model_free(tp_model *model);     /* NULL is fine. Free its sessions first */

/* ---- Session --------------------------------------------------------------------------------------------------- */

typedef enum tp_kv_type { TP_KV_F32 = 0, TP_KV_I16 = 1 } tp_kv_type;     /* floats; 16-bit integers, each vector with a step */

typedef struct tp_session_params {
    int32_t n_ctx;          /* positions; 0 = the model's context_length */
    int32_t threads;        /* caller included; 0 = 1; at most 256. WebAssembly has but the caller */
    int32_t isa;            /* for each operation the best kernel at or below it; TP_ISA_BEST = all of this CPU */
    int32_t kv_type;        /* tp_kv_type */
    int32_t batch;          /* tokens worked on at once; 0 = 264. Changes speed and memory, never results */
} tp_session_params;

TP_API int tp_session_new(const tp_model *model, const tp_session_params *params /* (1) */, tp_session **out /* (1) */);
TP_API void tp_session_free(tp_session *session);   /* NULL is fine */

typedef enum tp_logits_mode { TP_LOGITS_NONE = 0, TP_LOGITS_LAST = 1, TP_LOGITS_ALL = 2 } tp_logits_mode;

/* Appends n >= 1 tokens at position tp_n_past. logits: (vocab) for LAST, (n, vocab) for ALL, NULL for NONE.
 * TP_ERR_TOKEN, TP_ERR_CONTEXT and TP_ERR_ARGUMENT change nothing: the session stays usable. */
TP_API int tp_eval(tp_session *session, const int32_t *tokens /* (n) */, int64_t n, int logits_mode, float *logits);

/* The same, giving the hidden states after the final norm instead of logits. */
TP_API int tp_eval_hidden(tp_session *session, const int32_t *tokens /* (n) */, int64_t n, float *hidden /* (n, hidden) */);

TP_API int64_t tp_n_past(const tp_session *session);
TP_API int tp_rewind(tp_session *session, int64_t n_past);  /* forget positions >= n_past; 0 <= n_past <= tp_n_past */

typedef enum tp_dtype { TP_DTYPE_F32 = 0, TP_DTYPE_INT8 = 1 } tp_dtype;

/* Called in tp_eval's thread after each step; data is (rows, cols), valid during the call, rows = tokens of the batch.
 * layer is -1 outside the layers. Points, in order: embd; per layer attn_in attn_in.q8 attn_q attn_k attn_v attn_q_rope
 * attn_k_rope attn_out attn_sub_norm attn_sub_norm.q8 attn_output ffn_in ffn_in.q8 attn_residual ffn_gate ffn_up ffn_mul
 * ffn_down_in ffn_down_in.q8 ffn_down layer_out; then final_norm. NAME.q8 are the int8 codes that enter the linears, and
 * after each NAME.scale (f32, one column), their s; both come also where a sub-norm is absent, and not at all where
 * activations stay float. Where a linear has its own norm, attn_in.q8 is attn_q_in.q8 attn_k_in.q8 attn_v_in.q8, and
 * ffn_in.q8 is ffn_gate_in.q8 ffn_up_in.q8, each after the float NAME. */
typedef void tp_trace_fn(void *user, const char *point, int layer, int dtype, int64_t rows, int64_t cols, const void *data);
TP_API void tp_set_trace(tp_session *session, tp_trace_fn *callback /* NULL = off */, void *user);

/* Symbols of the kernels that ran in this session so far. Writes at most max, returns how many there are. */
TP_API int tp_session_kernels(const tp_session *session, const char **symbols /* (max) */, int max);

/* ---- Parts, for tests, verify and doctor ----------------------------------------------------------------------- */

/* Per token: a = max(max|x|, 1e-5), s = 127 / a, q = clip(round_half_even(x * s), -128, 127), sum_q = sum of q.
 * A token with NaN or an infinity: s = NaN, q = 0, sum_q = 0; so all it enters is NaN. */
TP_API int tp_quantize_activations(int isa, const float *x /* (n, cols) */, int64_t n, int64_t cols, int8_t *q /* (n, cols) */,
                                   float *s /* (n) */, int32_t *sum_q /* (n) */);

/* out[t][r] = sum over k of (code[r][k] - 1) * q[t][k], exact, by kernel `index` (op matvec or matmul). I2_S's run T2 too; U8's
 * run every ternary tensor, unpacked by the best kernel of their instruction set or below. Codes under a scale of 0 are zeros there. */
TP_API int tp_kernel_matmul_int(int index, const tp_tensor *w /* (1) */, const int8_t *q /* (n, cols) */, int64_t n,
                                int32_t *out /* (n, rows) */);

/* out = w * x with float activations, as the head computes it (q8_0, q6_k, q4_k: 16-bit ones) and float ternary linears. */
TP_API int tp_head_matmul(int isa, const tp_tensor *w /* (1) */, const float *x /* (n, cols) */, int64_t n, float *out /* (n, rows) */);

/* One dequantised row. */
TP_API int tp_tensor_row(const tp_tensor *w /* (1) */, int64_t row, float *out /* (cols) */);

/* Runs every available kernel against scalar on built-in data. Returns the number of failures, -1 if out of memory;
 * writes one line per kernel, cut to size. report may be NULL. */
TP_API int tp_self_test(char *report /* (size) */, size_t size);

/* ---- Benchmarks ------------------------------------------------------------------------------------------------ */

/* The machine's limits, best of several rounds: bytes a second that `threads` threads read of data (in whole MiB), and int8
 * products a second of registers (0 where no kernel times what the matrix products of isa do). */
TP_API int tp_bench_read(int isa, int threads, const void *data /* (nbytes) */, uint64_t nbytes, double *bytes_per_second /* (1) */);
TP_API int tp_bench_dots(int isa, int threads, double *macs_per_second /* (1) */);

/* Kernel `index` on one thread, on data that stays in the cache: bytes a second of what it reads, of matmul and dots products. */
TP_API int tp_bench_kernel(int index, double *per_second /* (1) */);

#ifdef __cplusplus
}
#endif
#endif
