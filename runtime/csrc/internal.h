/* Declarations that the C files above the kernels share: the kernel table, the CPU, tensors, the
 * thread pool, products. The library exports none of them. */
#ifndef TRITPACK_INTERNAL_H
#define TRITPACK_INTERNAL_H

#include "include/tritpack.h"
#include "kernels/common.h"
#include "kernels/kernels.h"
#include "kernels/row_geometry.h"

/* int32 sums of any bytes fit up to here: 3 * 128 * 2^21 < 2^30. */
#define TP_MAX_COLS (INT64_C(1) << 21)
#define TP_MAX_THREADS 256

static inline int64_t tp_round64(int64_t v) { return (v + 63) / 64 * 64; }

/* ---- cpu.c ---- */
int tp_cpu_has(int isa); /* 1 if this CPU and OS run it */

/* ---- dispatch.c ---- */
typedef enum tp_op {
#define OP(name, NAME) TP_OP_##NAME,
#include "kernels/operations.def"
#undef OP
    TP_OP_COUNT
} tp_op;

/* ---- activation_order.c: the order in which a linear kernel reads its int8 activations ---- */
typedef struct tp_activation_order tp_activation_order;
struct tp_activation_order {
    int tokens; /* per piece; pieces are independent */
    size_t (*bytes)(const tp_activation_order *a, int64_t n, int64_t cols);
    void (*fill)(const tp_activation_order *a, const int8_t *q /* (n, padded cols) */, int64_t n,
                 int64_t cols, int64_t piece, void *dst /* bytes */);
    tp_lines lines;
};
extern const tp_activation_order tp_matvec_order[TP_LAYOUT_COUNT], tp_tiles4, tp_tiles12,
    tp_tiles8_by_8;

typedef struct tp_kernel {
    const char *symbol;
    tp_op op;
    int layout;
    int isa;
    tp_matvec_fn *matvec;
    tp_matmul_fn *matmul;
    const tp_activation_order *activation_order; /* matvec, matmul; NULL = (n, cols) as it is */
    int few_tokens; /* matvec: up to here it is faster than matmul, which unpacks rows first */
    int panel_rows; /* matmul: rows unpacked at once, panel_rows * cols bytes of scratch */
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
    union {
        tp_rope_fn *rope, *ropepairs;
    };
    union {
        tp_attention_fn *attention, *attention16;
    };
    tp_cache16_fn *cache16;
    tp_hadamard_fn *hadamard;
    tp_conv_fn *conv;
    tp_delta_rule_fn *delta_rule;
    tp_widen_fn *widen;
    tp_encode_fn *encode;
    tp_abs_sum_fn *abs_sum;
    tp_absmean_fn *absmean;
    tp_checksum_fn *checksum;
    union {
        tp_roofline_fn *roofline, *read, *dots;
    };
} tp_kernel;

const tp_kernel *tp_kernel_at(int index); /* NULL past the end */
int tp_kernel_index(const tp_kernel *k);
const tp_kernel *tp_kernel_best(tp_op op, int layout,
                                int isa); /* best at or below isa on this CPU; NULL if none */

/* ---- alloc.c ---- */
/* Zeroed and aligned to 64 bytes. Sizes have 64 bits on every machine; NULL for what it cannot
 * hold. */
void *tp_alloc(uint64_t count, uint64_t size);
void tp_free(void *p);

/* ---- layouts.c ---- */
int tp_tensor_check(const tp_tensor *t); /* a tp_status: layout, bytes, alignment, header, tiles */
int tp_is_ternary(int layout);        /* 1 if it is ternary and holds its scales, so that it runs */
int tp_takes_acts16(int layout);      /* 1 if a head of it takes 16-bit activations */
int64_t tp_padded_cols(int64_t cols); /* of the activations that enter ternary linears */

/* A ternary tensor taken apart: its codes, and where its scales stand. The scale of row r and of
 * block b of columns is f32 or f16 and not aligned. With i = r / rows_per_scale it stands at
 *
 *   scales + i / run * run_bytes + i % run * (bytes of a scale) + b * block_bytes
 *
 * and is multiplied by body.scale. */
typedef struct tp_ternary {
    tp_tensor body; /* as unpack kernels take it: without header and trailer */
    const uint8_t *scales;
    int64_t rows_per_scale, run, run_bytes, col_blocks, block_bytes;
    int half;    /* 1: scales are f16 */
    int grouped; /* 1: blocks of columns are groups of the model, not of the layout */
} tp_ternary;
tp_ternary tp_ternary_of(const tp_tensor *t); /* t is ternary and has passed tp_tensor_check */
uint64_t tp_body_nbytes(int layout, int64_t rows, int64_t cols); /* 0 if it cannot have the shape */
int tp_tile_fits(const tp_tensor *t);                            /* 1 for layouts without tiles */
void tp_scales_of_row(const tp_ternary *t, int64_t row, float *out /* (col_blocks) */);

/* Where the scale of a row's first block of columns stands, and the value of a scale. */
static inline const uint8_t *tp_scales_at(const tp_ternary *t, int64_t row) {
    const int64_t i = row / t->rows_per_scale;
    return t->scales + i / t->run * t->run_bytes + i % t->run * (t->half ? 2 : 4);
}
static inline float tp_scale_value(const tp_ternary *t, const uint8_t *at) {
    return (t->half ? tp_f16_float(tp_load_u16(at)) : tp_load_f32(at)) * t->body.scale;
}

/* ---- ternary.c: ternary tensors by kernels ---- */

/* How an operation treats a layout. */
typedef struct tp_kernel_plan {
    const tp_kernel *kernel; /* NULL: not at all */
    const tp_kernel *unpack; /* makes the U8 that kernel takes; NULL: it takes what is stored */
} tp_kernel_plan;
tp_kernel_plan tp_kernel_plan_for(tp_op op, int layout, int isa);
/* The plan that unpacks, even if there is a direct kernel. */
tp_kernel_plan tp_unpacking_plan_for(tp_op op, int layout, int isa);

/* Returns 1 if each row has one scale, so that its integers may be summed as they are.
 * Under a scale of 0 all codes count as zeros, so a block with that scale does not matter.
 * *nonzero_under_zero is 1 if other codes are stored there: products must then unpack the tensor,
 * which clears them. */
int tp_one_scale_per_row(const tp_ternary *t, int *nonzero_under_zero);
void tp_row_scales(const tp_ternary *t, int64_t row0, int64_t row1, float *out /* (row1 - row0) */);

/* Codes as kernels without unpacking take them: in whole blocks, and T2 as I2_S. */
tp_tensor tp_direct_codes(const tp_ternary *t);
/* Plain codes of rows. Those under a scale of 0 are 1, whatever is stored. */
void tp_unpack_rows(const tp_kernel *unpack, const tp_ternary *t, int64_t row0, int64_t row1,
                    uint8_t *out /* (row1 - row0, ld) */, int64_t ld);
size_t tp_dequantize_scratch(int64_t cols); /* bytes */
void tp_dequantize_row(tp_kernel_plan dequantize, const tp_ternary *t, int64_t row,
                       float *out /* (cols) */,
                       void *scratch /* tp_dequantize_scratch bytes, aligned to 64 */);

/* ---- threads.c ---- */
typedef struct tp_pool tp_pool;
typedef void tp_task_fn(void *ctx, int thread, int64_t begin, int64_t end);
tp_pool *tp_pool_new(int threads, int *status); /* threads include the caller */
void tp_pool_free(tp_pool *pool);
int tp_pool_threads(const tp_pool *pool);
/* Runs fn over [0, items) in chunks and returns when all are done. Each thread starts with one
 * contiguous piece. */
void tp_pool_run(tp_pool *pool, tp_task_fn *fn, void *ctx, int64_t items, int64_t chunk);

/* ---- product.c: matrix products of int8 activations over a pool ---- */

/* Quantised activations of a batch. */
typedef struct tp_acts8 {
    int8_t *q;     /* (n, padded cols), zeros after cols */
    float *s;      /* (n) */
    int32_t *sum;  /* (n) */
    void *ordered; /* the codes again, in a kernel's activation order */
} tp_acts8;

typedef struct tp_linear_job {
    const tp_tensor *w;
    tp_kernel_plan plan;
    float *y;      /* (n, w->rows), or NULL */
    int32_t *sums; /* (n, w->rows) raw integers, or NULL */
    /* If set, y = glu(what the next job gives, what this one does), made while both are in cache.
     * The next job then has neither y nor sums, and the same plan and number of rows as this one.
     */
    const tp_kernel *glu;
    int activation;
    /* tp_linears_run sets the rest. */
    tp_ternary parts;
    tp_tensor codes; /* tp_direct_codes of parts */
    int64_t grain;   /* rows per chunk */
    int64_t chunks;
} tp_linear_job;

/* Bytes per thread. */
size_t tp_linear_scratch(tp_kernel_plan plan, int64_t rows, int64_t cols, int64_t n);
/* All jobs read the same activations. */
void tp_linears_run(tp_pool *pool, const tp_kernel *rescale, tp_linear_job *jobs /* (count) */,
                    int count, tp_acts8 *acts, int64_t n,
                    uint8_t *scratch /* (threads, scratch_bytes) */, size_t scratch_bytes);

/* ---- float_product.c: matrix products of float activations over a pool ---- */

/* y = w * x in the head's order of sums, where a weight is (code - 1) * scale. One token goes by
 * matvec_f32 if tp_matvec_f32_fits. More tokens go by rows of floats that decode makes. Both give
 * the same bits. */
int tp_matvec_f32_fits(tp_kernel_plan matvec_f32, const tp_tensor *w, int64_t n);
size_t tp_float_scratch(int64_t rows, int64_t cols); /* bytes per thread */
void tp_linear_float_run(tp_pool *pool, tp_kernel_plan dequantize, tp_kernel_plan matvec_f32,
                         const tp_kernel *head_f32, const tp_tensor *w,
                         const float *x /* (n, cols) */, int64_t n,
                         uint8_t *scratch /* (threads, scratch_bytes) */, size_t scratch_bytes,
                         float *y /* (n, rows) */);

size_t tp_acts16_bytes(int64_t n, int64_t cols);
void tp_acts16_place(void *memory /* tp_acts16_bytes */, int64_t n, int64_t cols,
                     tp_lm_head_acts *out);
void tp_head_run(tp_pool *pool, const tp_kernel *head, const tp_kernel *quantize16,
                 const tp_tensor *w, const float *x /* (n, cols) */, int64_t n,
                 void *acts16 /* tp_acts16_bytes, or NULL for float layouts */,
                 float *out /* (n, rows) */);

#endif
