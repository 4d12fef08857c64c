/* What the C files above the kernels share: the kernel table, the CPU, the thread pool. Nothing here is exported. */
#ifndef TRITPACK_INTERNAL_H
#define TRITPACK_INTERNAL_H

#include "include/tritpack.h"
#include "kernels/kernels.h"
#include "kernels/row_geometry.h"

#define TP_MAX_COLS (INT64_C(1) << 21)      /* int32 sums hold for any bytes up to here: 3 * 128 * 2^21 < 2^30 */
#define TP_MAX_THREADS 256
#define TP_FEW_TOKENS 4             /* up to here matvec, token by token, is faster than matmul, which unpacks the weights first */

/* ---- cpu.c ---- */
int tp_cpu_has(int isa);            /* 1 if this CPU and OS run it */

/* ---- dispatch.c ---- */
/* The operations: X(word in names of kernels, enumerator). */
#define TP_OPERATIONS(X) \
    X(matvec, MATVEC) X(matmul, MATMUL) X(unpack, UNPACK) X(pack, PACK) \
    X(dequantize, DEQUANTIZE) X(matvec_f32, MATVEC_F32) X(lm_head, LM_HEAD) \
    X(quantize, QUANTIZE) X(quantize16, QUANTIZE16) X(rescale, RESCALE) X(rmsnorm, RMSNORM) \
    X(glu, GLU) X(rope, ROPE) X(ropepairs, ROPEPAIRS) X(attention, ATTENTION) \
    X(attention16, ATTENTION16) X(cache16, CACHE16) X(read, READ) X(dots, DOTS)

typedef enum tp_op {
#define OPERATION(word, NAME) TP_OP_##NAME,
    TP_OPERATIONS(OPERATION)
#undef OPERATION
    TP_OP_COUNT
} tp_op;

/* ---- arrange.c: how a linear kernel wants its int8 activations ---- */
typedef struct tp_arrangement tp_arrangement;
struct tp_arrangement {
    int tokens;                 /* per piece: pieces are independent */
    size_t (*bytes)(const tp_arrangement *a, int64_t n, int64_t cols);
    void (*fill)(const tp_arrangement *a, const int8_t *q /* (n, padded cols) */, int64_t n, int64_t cols, int64_t piece, void *dst /* bytes */);
    tp_lines lines;
};
extern const tp_arrangement tp_matvec_order[TP_LAYOUT_COUNT], tp_tiles4, tp_tiles12, tp_tiles8_by_8;

typedef struct tp_kernel {
    const char *symbol;
    tp_op op;
    int layout;
    int isa;
    tp_matvec_fn *matvec;
    tp_matmul_fn *matmul;
    const tp_arrangement *arrangement;      /* matvec, matmul; NULL = (n, cols) as it is */
    int panel_rows;                         /* matmul: rows unpacked at once, panel_rows * cols bytes of scratch */
    tp_lm_head_fn *lm_head;
    tp_quantize_fn *quantize;
    tp_quantize16_fn *quantize16;
    tp_unpack_fn *unpack;
    tp_pack_fn *pack;
    tp_dequantize_fn *dequantize;
    tp_matvec_f32_fn *matvec_f32;
    tp_rescale_fn *rescale;
    tp_rmsnorm_fn *rmsnorm;
    tp_glu_fn *glu;
    union { tp_rope_fn *rope, *ropepairs; };
    union { tp_attention_fn *attention, *attention16; };
    tp_cache16_fn *cache16;
    union { tp_roofline_fn *roofline, *read, *dots; };
} tp_kernel;

const tp_kernel *tp_kernel_at(int index);                               /* NULL past the end */
int tp_kernel_index(const tp_kernel *k);
const tp_kernel *tp_kernel_best(tp_op op, int layout, int isa);         /* best at or below isa on this CPU; NULL if none */

/* ---- tensor.c ---- */
void *tp_alloc(size_t count, size_t size);                              /* zeroed, 64-byte aligned, NULL on overflow */
void tp_free(void *p);

/* ---- layouts.c ---- */
int tp_tensor_check(const tp_tensor *t);                                /* tp_status: layout, bytes, alignment, header, tiles */
int tp_is_ternary(int layout);                                          /* and its scales are in its bytes, so that it runs */
int tp_takes_acts16(int layout);                                        /* as a head: activations of 16 bits */
int64_t tp_padded_cols(int64_t cols);                                   /* of the activations that enter ternary linears */

/* A ternary tensor apart: its codes, and where its scales stand. That of row r and block b of columns is f32 or f16, unaligned, at
 * scales + i / run * run_bytes + i % run * (size of one) + b * block_bytes, i being r / rows_a_scale; times body.scale. */
typedef struct tp_ternary {
    tp_tensor body;                 /* as unpack kernels take it: without header and trailer */
    const uint8_t *scales;
    int64_t rows_a_scale, run, run_bytes, col_blocks, block_bytes;
    int half;                       /* f16 */
} tp_ternary;
tp_ternary tp_ternary_of(const tp_tensor *t);                           /* t has passed tp_tensor_check and is ternary */
uint64_t tp_body_nbytes(int layout, int64_t rows, int64_t cols);        /* 0 if the layout cannot hold the shape */
int tp_tile_fits(const tp_tensor *t);                                   /* 1 for layouts without tiles */
const uint8_t *tp_scales_at(const tp_ternary *t, int64_t row);           /* of its first block of columns */
void tp_scales_of_row(const tp_ternary *t, int64_t row, float *out /* (col_blocks) */);
/* Whether each row has one scale, so that its integers may be summed as they are, and these scales. Under a scale of 0 all codes are
 * zeros, so that any other may take its place; *stray: some are stored as others, and must be unpacked to be cleared. */
int tp_one_scale_a_row(const tp_ternary *t, int *stray);
void tp_row_scales(const tp_ternary *t, int64_t row0, int64_t row1, float *out /* (row1 - row0) */);
void tp_clear_unscaled(const tp_ternary *t, int64_t row, uint8_t *codes /* (cols) */);     /* makes them zeros */

/* ---- ternary.c: ternary tensors by kernels ---- */
typedef struct tp_way {             /* how an operation is done to a layout */
    const tp_kernel *kernel;        /* NULL: not at all */
    const tp_kernel *unpack;        /* makes the plain codes (U8) that kernel takes; NULL: it takes what is stored */
} tp_way;
tp_way tp_way_of(tp_op op, int layout, int isa);
tp_way tp_plain_way_of(tp_op op, int layout, int isa);                    /* by unpacking, even if it has a kernel */
tp_tensor tp_direct_codes(const tp_ternary *t);                         /* what kernels without unpacking take: whole blocks, I2_S for T2 */
/* Codes of rows; those under a scale of 0 are 1, whatever is stored. */
void tp_unpack_rows(const tp_kernel *unpack, const tp_ternary *t, int64_t row0, int64_t row1, uint8_t *out /* (row1 - row0, ld) */, int64_t ld);
size_t tp_dequantize_scratch(int64_t cols);
void tp_dequantize_row(tp_way dequantize, const tp_ternary *t, int64_t row, float *out /* (cols) */, void *scratch /* tp_dequantize_scratch, aligned */);

/* ---- threads.c ---- */
typedef struct tp_pool tp_pool;
typedef void tp_task_fn(void *ctx, int thread, int64_t begin, int64_t end);
tp_pool *tp_pool_new(int threads, int *status);                         /* threads include the caller */
void tp_pool_free(tp_pool *pool);
int tp_pool_threads(const tp_pool *pool);
/* Runs fn over [0, items) in chunks; returns when all are done. Each thread starts with one contiguous piece. */
void tp_pool_run(tp_pool *pool, tp_task_fn *fn, void *ctx, int64_t items, int64_t chunk);

/* ---- product.c: matrix products over a pool ---- */
typedef struct tp_acts8 {           /* quantised activations of a batch */
    int8_t *q;                      /* (n, padded cols), zeros behind cols */
    float *s;                       /* (n) */
    int32_t *sum;                   /* (n) */
    void *arranged;                 /* in the order of a kernel's arrangement */
} tp_acts8;

typedef struct tp_linear_job {
    const tp_tensor *w;
    tp_way way;
    float *y;                       /* (n, w->rows), or NULL */
    int32_t *sums;                  /* (n, w->rows) raw integers, or NULL */
    /* With both y = glu(what the next job gives, what this one does), while they are in cache: the next has neither y nor sums, and
     * the way, matmul or unpacked, and rows in common with this one. */
    const tp_kernel *glu;
    int activation;
    tp_ternary parts;               /* this and the rest are set by tp_linears_run */
    tp_tensor codes;                /* tp_direct_codes of it */
    int64_t grain;                  /* rows a chunk */
    int64_t chunks;
} tp_linear_job;

/* bytes a thread */
size_t tp_linear_scratch(tp_way way, int64_t rows, int64_t cols, int64_t n);
/* All jobs read the same activations. scratch: one block of scratch_bytes per thread. */
void tp_linears_run(tp_pool *pool, const tp_kernel *rescale, tp_linear_job *jobs /* (count) */, int count, tp_acts8 *acts, int64_t n,
                    uint8_t *scratch /* (threads, scratch_bytes) */, size_t scratch_bytes);

/* Float activations: y = w * x in the head's order of sums, the weights being (code - 1) * scale. One token goes by matvec_f32 if
 * tp_matvec_f32_fits, more by rows of floats that dequantize makes: the same bits. */
int tp_matvec_f32_fits(tp_way matvec_f32, const tp_tensor *w, int64_t n);
size_t tp_float_scratch(int64_t rows, int64_t cols);                                    /* bytes a thread */
void tp_linear_float_run(tp_pool *pool, tp_way dequantize, tp_way matvec_f32, const tp_kernel *head_f32, const tp_tensor *w, const float *x /* (n, cols) */,
                         int64_t n, uint8_t *scratch, size_t scratch_bytes, float *y /* (n, rows) */);

size_t tp_acts16_bytes(int64_t n, int64_t cols);
void tp_acts16_place(void *memory /* tp_acts16_bytes */, int64_t n, int64_t cols, tp_lm_head_acts *out);
void tp_head_run(tp_pool *pool, const tp_kernel *head, const tp_kernel *quantize16, const tp_tensor *w, const float *x /* (n, cols) */,
                 int64_t n, void *acts16 /* tp_acts16_bytes, or NULL for float layouts */, float *out /* (n, rows) */);

#endif
