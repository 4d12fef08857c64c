/* tritpack: running BitNet b1.58 models. The public C API, from the whole library to its
 * kernels.
 *
 * One model is one function: every instruction set, thread count and batch size gives the same
 * bits. Integer parts are exact int32. Float dot products use 16 fixed lanes and one fixed tree
 * (kernels/common.h). Nothing uses FMA.
 *
 * A tp_model describes weights that the caller keeps in memory, in a mapped file for example, as
 * long as the model lives. A tp_session has the threads and the buffers that evaluate tokens, and
 * one tp_sequence: the KV cache of a conversation. Further sequences share its threads, and one
 * pass over the weights can serve them all. One thread at a time may use a session with its
 * sequences; several sessions may share a model. In a child after fork() a session works on the
 * calling thread alone. The caller's rounding mode
 * changes no result and is restored.
 *
 * Functions that return int and can fail return a tp_status: TP_OK (0) or a reason. Then outputs
 * are undefined unless a comment says otherwise. Pointers must not be NULL unless a comment
 * allows it. (a, b) in a comment is the shape of what a pointer points to, row-major. */
#ifndef TRITPACK_H
#define TRITPACK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TP_API __attribute__((visibility("default")))

/* ---- Library ---- */

/* Raised when a struct or a signature below changes. Compare with tp_abi_version() after
 * loading. */
#define TP_ABI_VERSION 8
TP_API int tp_abi_version(void);

typedef enum tp_status {
    TP_OK = 0,
    TP_ERR_ARGUMENT = 1, /* a null pointer, a value out of range, an unaligned tensor */
    TP_ERR_SHAPE = 2,    /* a tensor's shape does not fit its layout, its tiles or the model */
    TP_ERR_LAYOUT = 3,   /* no kernel for this layout in this place */
    TP_ERR_BYTES = 4,    /* nbytes does not match layout and shape */
    TP_ERR_ISA = 5,      /* instruction set unknown or not on this CPU */
    TP_ERR_TOKEN = 6,    /* a token id outside the vocabulary */
    TP_ERR_CONTEXT = 7,  /* more positions than the session's context holds */
    TP_ERR_MEMORY = 8,   /* allocation failed */
    TP_ERR_THREADS = 9,  /* a thread could not be started */
    TP_ERR_FINITE = 10,  /* a value is infinite or NaN */
    TP_ERR_OVERFLOW = 11 /* a value is too large for the type that it is encoded as */
} tp_status;

/* Returns one sentence for any int, never NULL. */
TP_API const char *tp_status_text(int status);

/* Instruction sets in ladder order: scalar, then those of x86, of ARM and of WebAssembly. */
#define TP_ISA(ID, name) TP_ISA_##ID,
typedef enum tp_isa {
#include "isas.def"
    TP_ISA_COUNT
} tp_isa;
#undef TP_ISA
#define TP_ISA_BEST (-1) /* where a function takes an isa: the highest that this CPU has */

TP_API int tp_isa_count(void);                 /* ids are 0 .. count - 1 */
TP_API const char *tp_isa_name(int isa);       /* NULL if isa is not an id */
TP_API int tp_isa_from_name(const char *name); /* the id, or -1; name may be NULL */
TP_API int tp_isa_available(int isa);          /* 1 if this CPU and its OS run it, else 0 */
TP_API int tp_best_isa(void);                  /* the highest available id */

/* Writes "brand; features" and a NUL, cut to size. Returns the length of the whole text. */
TP_API size_t tp_cpu_description(char *buf /* (size) */, size_t size);

/* ---- Tensors ---- */

/* Layouts of tensor data. layouts.def describes each of them, formats/README.md the bytes. */
#define TP_LAYOUT(ID, ...) TP_LAYOUT_##ID,
typedef enum tp_layout {
#include "layouts.def"
    TP_LAYOUT_COUNT
} tp_layout;
#undef TP_LAYOUT

TP_API const char *tp_layout_name(int layout); /* "i2_s", ...; NULL if not an id */

/* A row-major matrix in memory of the caller. Whole rows follow each other. */
typedef struct tp_tensor {
    const void *data;   /* (nbytes), aligned as layouts.def says; NULL = absent */
    int64_t rows, cols; /* a norm has 1 row */
    uint64_t nbytes;    /* has to match layout, shape and, for T2 and T158, the header */
    int32_t layout;     /* tp_layout */
    int32_t tile[3];    /* TL1, TL2: BM rows by BK columns, in blocks of bm rows; 0 for others */
    float scale;        /* of a ternary tensor: multiplies its scales, finite, >= 0; else 1 */
    int32_t rotated;    /* of a model: 1 if it is stored in a rotated basis (tp_hparams); else 0 */
} tp_tensor;

/* Returns the bytes of a tensor (T2, T158: with one scale), or 0 if it cannot have the shape. */
TP_API uint64_t tp_tensor_nbytes(int layout, int64_t rows, int64_t cols);

/* Convert between weights -1, 0, +1 and the body of a ternary tensor. The body is the tensor
 * without the header of T2 and T158 and without the 32 bytes of scale after I2_S, TL1 and TL2.
 * Scales stay as they are. tp_pack needs a body of zeros. tp_unpack gives +2 for a code of 3 and
 * for nibbles that mean nothing; it does not judge trits. Both return TP_ERR_BYTES if body_bytes
 * is not the size of the body. tile may be NULL for layouts without tiles. */
TP_API int tp_pack(int layout, const int32_t *tile /* (3) */, int64_t rows, int64_t cols,
                   const int8_t *codes /* (rows, cols) */, uint8_t *body /* (body_bytes) */,
                   uint64_t body_bytes);
TP_API int tp_unpack(int layout, const int32_t *tile /* (3) */, int64_t rows, int64_t cols,
                     const uint8_t *body /* (body_bytes) */, uint64_t body_bytes,
                     int8_t *codes /* (rows, cols) */);

/* Writes one row as floats, for any layout that a model may hold. 0 <= row < rows. */
TP_API int tp_tensor_row(const tp_tensor *w, int64_t row, float *out /* (cols) */);

/* ---- Conversion, on blocks of whole rows ---- */

/* Encodes floats of type `from` (F32, F16, BF16) as type `to` (those, Q8_0, Q6_K, Q4_K), rounded
 * to nearest even. Without a failure *survived says whether the plain type `to` holds every value
 * exactly; types of blocks round, so it is 0 for them. out may be NULL: then the values are only
 * judged. Floats are aligned to their own size, on both sides. */
TP_API int tp_encode(int to, int from, int64_t rows, int64_t cols,
                     const void *values /* (rows, cols) */,
                     void *out /* tp_tensor_nbytes(to, rows, cols) */, int *survived);

/* Sums of magnitudes, per row: |w| of element i is added to lane i mod 16, in order of i, in
 * float64; then the tree: lane i += lane i + 8, then + 4, + 2, + 1. A value that is not finite
 * makes the sum so. `from` is F32, F16 or BF16, here and below. */
TP_API int tp_abs_sums(int from, int64_t rows, int64_t cols, const void *values /* (rows, cols) */,
                       double *sums /* (rows) */);

/* codes = clip(round_half_even(w * reciprocal), -1, 1), the product rounded to float32; 0 for
 * NaN. */
TP_API int tp_absmean_codes(int from, int64_t rows, int64_t cols,
                            const void *values /* (rows, cols) */, float reciprocal,
                            int8_t *codes /* (rows, cols) */);

/* Returns the sum modulo 2^64, over 8-byte words, of a mix of the word and its index. Those of the
 * pieces of a tensor add up to that of the tensor, in any order, if all but the last have whole
 * words; a last word is filled up with zeros. It notices accidents, but no forger. */
TP_API uint64_t tp_checksum(const void *bytes /* (nbytes) */, uint64_t nbytes,
                            uint64_t first_word /* its index in the tensor */);

/* ---- Model ---- */

typedef enum tp_activation { TP_ACT_RELU2, TP_ACT_SILU, TP_ACT_GELU_TANH } tp_activation;

typedef struct tp_hparams {
    int32_t vocab_size, hidden, ffn, layers;
    int32_t heads, kv_heads, head_dim, context_length;
    float norm_eps;
    float projection_norm_eps; /* of the norms named *_norm_in */
    int32_t activation;        /* tp_activation */
    int32_t int8_activations;  /* 1: what enters a linear is int8 per token; 0: it stays float */
    int32_t rope_interleaved;  /* RoPE pairs: 0 (i, i + head_dim/2), 1 (2 i, 2 i + 1) */
    int32_t window;            /* positions that sliding layers see */
    float embedding_scale, residual_scale, logit_scale; /* multipliers; 1 for most models */
    float attention_scale;                              /* of q.k; 1 / sqrt(head_dim) for most */
    float rope_factor;       /* YaRN: multiplies cos and sin of layers that do not slide */
    int32_t rotary_dim;      /* the first values of a head, which RoPE turns: head_dim for most */
    int32_t gated_attention; /* 1: attn_q has a gate behind each head's query, and what attention
                                gives is multiplied by sigmoid(gate) */
    int32_t key_heads, value_heads, state_size; /* of recurrent layers, if there are any */
    int32_t conv_taps;                          /* tokens that their convolution sees */
    int32_t rotation_block; /* values that are transformed together, a power of two; 0: no basis */
    int32_t grouped_heads;  /* 1: the columns of a rotated ssm_out have value heads by key head */
    int32_t sign_widths[4]; /* different, 0 after the last; all 0 if there are no signs */
    const float *inv_freq;  /* (rotary_dim / 2) RoPE angle per position */
    const float *inv_freq_sliding; /* (rotary_dim / 2) the same for layers that slide, or NULL */
    const float *signs;            /* (sum of sign_widths) 1 and -1, for inputs of these widths */
} tp_hparams;

/* Linears are ternary with shape (out, in). Norms are f32 with 1 row; "absent" means data NULL.
 *
 * A rotated linear L gives L H (s x): the input times the signs of its width, then a normalised
 * Walsh-Hadamard transform of each block of it, in natural order. A row z of a rotated token_embd
 * means s (H z); as the head it is a linear. The linears, token_embd and output may be rotated.
 *
 * A recurrent layer (Gated DeltaNet) has the tensors from attn_qkv on in place of those of
 * attention. Value heads stand as in GGUF: the one in place p uses key head p mod key_heads. In a
 * rotated ssm_out with grouped_heads, head v uses key head v / (value_heads / key_heads). */
typedef struct tp_layer {
    tp_tensor attn_norm;      /* (1, hidden) */
    tp_tensor attn_q;         /* (heads * head_dim, hidden), twice as many rows if gated */
    tp_tensor attn_k, attn_v; /* (kv_heads * head_dim, hidden) */
    tp_tensor attn_q_norm, attn_k_norm; /* (1, head_dim) of each head before RoPE, or absent */
    tp_tensor attn_sub_norm;            /* (1, heads * head_dim) or absent */
    tp_tensor attn_output;              /* (hidden, heads * head_dim) */
    tp_tensor post_attention_norm;      /* (1, hidden) of what is added to the stream, or absent */
    tp_tensor ffn_norm;                 /* (1, hidden) */
    tp_tensor ffn_gate, ffn_up;         /* (ffn, hidden) */
    tp_tensor ffn_sub_norm;             /* (1, ffn) or absent */
    tp_tensor ffn_down;                 /* (hidden, ffn) */
    tp_tensor post_ffw_norm;            /* (1, hidden) or absent */
    /* Each linear's norm of its own input, (1, cols of the linear), or absent. */
    tp_tensor attn_q_norm_in, attn_k_norm_in, attn_v_norm_in, attn_output_norm_in;
    tp_tensor ffn_gate_norm_in, ffn_up_norm_in, ffn_down_norm_in;
    /* A recurrent layer: keys = key_heads * state_size, values = value_heads * state_size. */
    tp_tensor attn_qkv;            /* (2 keys + values, hidden): queries, keys, values */
    tp_tensor attn_gate;           /* (values, hidden) */
    tp_tensor ssm_alpha, ssm_beta; /* (value_heads, hidden), ternary or f32, f16, bf16 */
    tp_tensor ssm_conv1d;          /* (2 keys + values, conv_taps) f32; the last is the present */
    tp_tensor ssm_a, ssm_dt;       /* (1, value_heads) f32: -exp(A_log), dt_bias */
    tp_tensor ssm_norm;            /* (1, state_size) f32 */
    tp_tensor ssm_out;             /* (hidden, values) */
    int32_t slides;                /* 1: sees hparams.window positions */
    int32_t recurrent;             /* 1: a Gated DeltaNet */
} tp_layer;

typedef struct tp_model tp_model;

/* Makes a model. Checks every shape and size, then copies the tables, but not the weights, which
 * must outlive the model. output may be NULL or absent: then token_embd is the head. On failure
 * *out is NULL and tp_error_place says where. */
TP_API int tp_model_new(const tp_hparams *hparams, const tp_layer *layers /* (hparams->layers) */,
                        const tp_tensor *token_embd /* (vocab_size, hidden) */,
                        const tp_tensor *output_norm /* (1, hidden), f32 */,
                        const tp_tensor *output /* as token_embd */, tp_model **out);
TP_API void tp_model_free(tp_model *model); /* NULL is fine; free its sessions first */

/* Returns where the last tp_model_new of this thread failed ("layer 3 ffn_down"), or "". */
TP_API const char *tp_error_place(void);

/* ---- Session ---- */

typedef struct tp_session tp_session;

/* The KV cache holds floats, or 16-bit integers with a step per vector. */
typedef enum tp_kv_type { TP_KV_F32, TP_KV_I16 } tp_kv_type;

typedef struct tp_session_params {
    int32_t n_ctx;   /* positions; 0 = the model's context_length */
    int32_t threads; /* with the caller, 1 to 256; 0 = 1. WebAssembly starts none: threads.c */
    int32_t isa;     /* each operation takes its best kernel at or below it */
    int32_t kv_type; /* tp_kv_type */
    int32_t batch;   /* tokens worked on at once, 0 = 264; no result depends on it */
} tp_session_params;

/* Makes a session. On failure *out is NULL. */
TP_API int tp_session_new(const tp_model *model, const tp_session_params *params, tp_session **out);
/* NULL is fine. Its sequences can only be freed afterwards. */
TP_API void tp_session_free(tp_session *session);

typedef enum tp_logits_mode { TP_LOGITS_NONE, TP_LOGITS_LAST, TP_LOGITS_ALL } tp_logits_mode;

/* Appends n >= 1 tokens to the session's own sequence, at position tp_n_past. logits: (vocab) for
 * LAST, (n, vocab) for ALL, NULL for NONE. After TP_ERR_TOKEN, TP_ERR_CONTEXT or TP_ERR_ARGUMENT
 * the session is as it was before. */
TP_API int tp_eval(tp_session *session, const int32_t *tokens /* (n) */, int64_t n, int logits_mode,
                   float *logits);

/* tp_eval in pieces, for callers that have to look up meanwhile, or to give up. tp_eval_begin takes
 * 1 <= n <= batch tokens. tp_eval_layers runs the next `layers` >= 1 layers and says in *left how
 * many remain; with the last one it writes the logits, and only then are the tokens appended.
 * Whatever else the session evaluates before drops what was begun; TP_ERR_ARGUMENT if nothing is,
 * if tp_n_past has changed, or if the model has recurrent layers, whose states could not be left.
 */
TP_API int tp_eval_begin(tp_session *session, const int32_t *tokens /* (n) */, int64_t n,
                         int logits_mode);
TP_API int tp_eval_layers(tp_session *session, int32_t layers, float *logits, int32_t *left);

/* As tp_eval, but gives the hidden states after the final norm instead of logits. */
TP_API int tp_eval_hidden(tp_session *session, const int32_t *tokens /* (n) */, int64_t n,
                          float *hidden /* (n, hidden) */);

/* tp_sequence_n_past and tp_sequence_rewind of the session's own sequence. */
TP_API int64_t tp_n_past(const tp_session *session);
TP_API int tp_rewind(tp_session *session, int64_t n_past);

/* ---- Several sequences ---- */

typedef struct tp_sequence tp_sequence;

/* The session's own sequence, which is freed with it. */
TP_API tp_sequence *tp_session_sequence(tp_session *session);

/* Makes an empty sequence of at most n_ctx positions; 0 = the session's n_ctx, which is the most.
 * Memory is taken as positions fill up. On failure *out is NULL. */
TP_API int tp_sequence_new(tp_session *session, int64_t n_ctx, tp_sequence **out);
TP_API void tp_sequence_free(tp_sequence *sequence); /* NULL and the session's own are fine */

TP_API int64_t tp_sequence_n_past(const tp_sequence *sequence); /* tokens that it has seen */
/* Returns the last position up to n_past to which a sequence can be rewound, or copied: n_past
 * itself, 0 <= n_past <= tp_sequence_n_past, unless the model has recurrent layers. Of these a
 * sequence keeps few earlier states (recurrence.c says which). It can go back
 *   - to 0;
 *   - by up to 16 tokens;
 *   - to any token of the last call, if that had no more than 32;
 *   - by up to 16 tokens from the end of the last prompt; until more tokens follow that prompt,
 *     also from the end of the prompt before it.
 * A prompt is a call of 16 tokens or more for the sequence. A call of up to 32 tokens that all give
 * logits is none: these are guesses. A rewound sequence can still go back to where it could
 * before, a copied or loaded one to 0; otherwise either goes back to tokens that came later. The
 * size of a batch changes none of this. */
TP_API int64_t tp_sequence_rewindable(const tp_sequence *sequence, int64_t n_past);
/* Drops the positions from n_past on. TP_ERR_ARGUMENT if n_past is not tp_sequence_rewindable. */
TP_API int tp_sequence_rewind(tp_sequence *sequence, int64_t n_past);
/* Makes `to` the first n_past positions of `from`, a sequence of the same session that could be
 * rewound to n_past. */
TP_API int tp_sequence_copy(tp_sequence *to, const tp_sequence *from, int64_t n_past);

/* Tokens that one sequence gets. The last `wanted` of them give logits. */
typedef struct tp_span {
    tp_sequence *sequence; /* of the session; no two spans may name the same */
    const int32_t *tokens; /* (n) */
    int64_t n, wanted;     /* n >= 1, 0 <= wanted <= n */
} tp_span;

/* Appends the tokens of each span to its sequence, in one pass over the weights for every `batch`
 * tokens (tp_session_params). A token gets the logits that tp_eval would give it alone, bit for
 * bit. logits: of the wanted tokens, in order; may be NULL if there are none. After an error all
 * sequences are as they were before. */
TP_API int tp_eval_spans(tp_session *session, const tp_span *spans /* (count) */, int64_t count,
                         float *logits /* (sum of wanted, vocab) */);

/* The keys, values and recurrent states of a sequence as bytes, to continue it later: on any
 * instruction set and in a sequence of any n_ctx, but only with the same model and kv_type, which
 * is not checked. Values that another model left give nonsense, but no access out of bounds. */
TP_API uint64_t tp_sequence_state_bytes(const tp_sequence *sequence, int64_t n_past);
TP_API int tp_sequence_save(const tp_sequence *sequence,
                            uint8_t *state /* (nbytes): tp_sequence_state_bytes of its n_past */,
                            uint64_t nbytes);
TP_API int tp_sequence_load(tp_sequence *sequence, int64_t n_past,
                            const uint8_t *state /* (nbytes), of n_past positions */,
                            uint64_t nbytes);

typedef enum tp_dtype { TP_DTYPE_F32, TP_DTYPE_INT8 } tp_dtype;

/* Called in the thread of tp_eval after each step. data is (rows, cols) and valid during the
 * call; rows are the tokens of the batch; layer is -1 outside the layers. The points come in
 * this order: embd; per layer attn_in attn_in.q8 attn_q attn_k attn_v attn_q_rope attn_k_rope
 * attn_out attn_sub_norm attn_sub_norm.q8 attn_output ffn_in ffn_in.q8 attn_residual ffn_gate
 * ffn_up ffn_mul ffn_down_in ffn_down_in.q8 ffn_down layer_out; then final_norm. A recurrent layer
 * has attn_in attn_qkv attn_gate ssm_alpha ssm_beta delta_out ssm_out_in attn_output in place of
 * those up to attn_output. What enters a linear is shown before it is rotated.
 *
 * NAME.q8 has the int8 codes that enter the linears. NAME.scale (f32, one column) follows and
 * has their s. Both come even where a sub-norm is absent, and never where activations stay
 * float. Where each linear has its own norm, attn_in.q8 becomes attn_q_in.q8 attn_k_in.q8
 * attn_v_in.q8, and ffn_in.q8 becomes ffn_up_in.q8 ffn_gate_in.q8, each after the float NAME. */
typedef void tp_trace_fn(void *user, const char *point, int layer, int dtype, int64_t rows,
                         int64_t cols, const void *data);
TP_API void tp_set_trace(tp_session *session, tp_trace_fn *callback /* NULL = off */, void *user);

/* Writes the symbols of the kernels that ran in this session, at most max. Returns how many
 * there are. symbols may be NULL if max is 0. */
TP_API int tp_session_kernels(const tp_session *session, const char **symbols /* (max) */, int max);

/* ---- Kernels, for tests, verify, doctor and bench ---- */

typedef struct tp_kernel_desc {
    const char *symbol; /* OP_LAYOUT_ISA: "matvec_i2_s_avx2" */
    const char *op;     /* the operation: "matvec", "matmul", "unpack", ... */
    const char *layout; /* of the weights, or of the data that it works on */
    const char *isa;
    int32_t available; /* 1 if this CPU runs it */
} tp_kernel_desc;

TP_API int tp_kernel_count(void);
TP_API int tp_kernel_info(int index, tp_kernel_desc *out); /* 0 <= index < count */

/* Quantises activations, per token:
 *
 *   a = max(max|x|, 1e-5), s = 127 / a, q = clip(round_half_even(x * s), -128, 127), sum_q = sum(q)
 *
 * A token with NaN or an infinity gets s = NaN, q = 0, sum_q = 0, so that
 * all that it enters becomes NaN. */
TP_API int tp_quantize_activations(int isa, const float *x /* (n, cols) */, int64_t n, int64_t cols,
                                   int8_t *q /* (n, cols) */, float *s /* (n) */,
                                   int32_t *sum_q /* (n) */);

/* out[t][r] = sum over k of (code[r][k] - 1) * q[t][k], exact, by kernel `index` (op matvec or
 * matmul). Kernels of I2_S take T2 too. Those of U8 take every ternary tensor, unpacked by the
 * best kernel of their instruction set or below, and count codes under a scale of 0 as zeros. The
 * others give some number for a row with such a scale. So does each kernel for codes, trits and
 * nibbles that mean nothing. */
TP_API int tp_kernel_matmul_int(int index, const tp_tensor *w, const int8_t *q /* (n, cols) */,
                                int64_t n, int32_t *out /* (n, rows) */);

/* out = w * x with float activations, as the head and float ternary linears compute it. Q8_0,
 * Q6_K and Q4_K round activations to 16 bits. */
TP_API int tp_head_matmul(int isa, const tp_tensor *w, const float *x /* (n, cols) */, int64_t n,
                          float *out /* (n, rows) */);

/* Runs every available kernel against scalar on built-in data. Returns the number of failures,
 * or -1 if out of memory. Writes one line per kernel and a NUL, cut to size. report may be NULL. */
TP_API int tp_self_test(char *report /* (size) */, size_t size);

/* The machine's limits, best of several rounds: bytes per second that `threads` threads read of
 * data (in whole MiB), and products per second of registers, of int8 and of floats, which are
 * multiplied and added without FMA (0 if no kernel times what the products of isa use). */
TP_API int tp_bench_read(int isa, int threads, const void *data /* (nbytes) */, uint64_t nbytes,
                         double *bytes_per_second);
TP_API int tp_bench_dots(int isa, int threads, double *macs_per_second);
TP_API int tp_bench_floats(int isa, int threads, double *macs_per_second);

/* Speed of kernel `index` on one thread, on data that stays in the cache: bytes per second that
 * it reads, or for matmul and dots products per second. */
TP_API int tp_bench_kernel(int index, double *per_second);

#ifdef __cplusplus
}
#endif
#endif
