/* How fast this machine is, and each kernel on it. The best of several rounds counts, since any
 * disturbance only slows a round down. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../fpenv.h"
#include "../internal.h"
#include "../kernels/attention/cache16.h"
#include "../kernels/quants.h"
#include "selftest.h"

enum { ROUNDS = 7 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the limits ---- */

typedef struct limit_job {
    const tp_kernel *k;
    const uint8_t *data;
    int64_t piece;
    uint64_t seen[TP_MAX_THREADS]; /* results, so that the compiler keeps the work */
} limit_job;

static void read_pieces(void *ctx, int thread, int64_t begin, int64_t end) {
    limit_job *job = ctx;
    for (int64_t i = begin; i < end; i++)
        job->seen[thread] ^= job->k->roofline(job->data + i * job->piece, job->piece);
}

static void dot_pieces(void *ctx, int thread, int64_t begin, int64_t end) {
    static const uint8_t us[2] = {1, 1};
    limit_job *job = ctx;
    for (int64_t i = begin; i < end; i++) job->seen[thread] ^= job->k->roofline(us, job->piece);
}

/* Of one round of dots. */
static double round_products(const tp_kernel *k) {
    return k->layout == TP_LAYOUT_F32 ? 12 * 16 : 12 * 64;
}

static double best_seconds(tp_pool *pool, tp_task_fn *fn, limit_job *job, int64_t items) {
    double best = 1e30;
    for (int i = 0; i < ROUNDS; i++) {
        const double begin = now();
        tp_pool_run(pool, fn, job, items, 1);
        const double took = now() - begin;
        best = took < best ? took : best;
    }
    return best;
}

/* layout: U8 or, for dots, F32. */
static int limit(tp_op op, int layout, int isa, int threads, const uint8_t *data, uint64_t nbytes,
                 double *out) {
    if (!out || threads < 1 || threads > TP_MAX_THREADS) return TP_ERR_ARGUMENT;
    if (isa == TP_ISA_BEST) isa = tp_best_isa();
    if (!tp_isa_available(isa)) return TP_ERR_ISA;
    int status;
    tp_pool *pool = tp_pool_new(threads, &status);
    limit_job *job = tp_alloc(1, sizeof *job);
    if (!pool || !job) status = status ? status : TP_ERR_MEMORY;
    else if (op == TP_OP_READ) {
        *job = (limit_job){.k = tp_kernel_best(op, layout, isa), .data = data, .piece = 1 << 20};
        const int64_t pieces = (int64_t)(nbytes >> 20);
        *out = pieces ? (double)(pieces << 20) / best_seconds(pool, read_pieces, job, pieces) : 0;
    } else {
        *job = (limit_job){.k = tp_kernel_best(op, layout, isa), .piece = 1 << 16};
        const int64_t pieces = 32 * threads;
        /* Products that use better instructions than the timed ones have an unknown limit. */
        const tp_op timed = layout == TP_LAYOUT_F32 ? TP_OP_MATVEC_F32 : TP_OP_MATMUL;
        const int unknown = job->k->isa == TP_ISA_SCALAR ||
                            job->k->isa < tp_kernel_best(timed, TP_LAYOUT_U8, isa)->isa;
        *out = unknown ? 0
                       : (double)pieces * 65536 * round_products(job->k) /
                             best_seconds(pool, dot_pieces, job, pieces);
    }
    tp_free(job);
    tp_pool_free(pool);
    return status;
}

int tp_bench_read(int isa, int threads, const void *data, uint64_t nbytes,
                  double *bytes_per_second) {
    return data ? limit(TP_OP_READ, TP_LAYOUT_U8, isa, threads, data, nbytes, bytes_per_second)
                : TP_ERR_ARGUMENT;
}

int tp_bench_dots(int isa, int threads, double *macs_per_second) {
    return limit(TP_OP_DOTS, TP_LAYOUT_U8, isa, threads, NULL, 0, macs_per_second);
}

int tp_bench_floats(int isa, int threads, double *macs_per_second) {
    return limit(TP_OP_DOTS, TP_LAYOUT_F32, isa, threads, NULL, 0, macs_per_second);
}

/* ---- one kernel ---- */

enum { ROWS = 256, COLS = 2560, TOKENS = 60, HEADS = 4 }; /* weights that stay in the L2 cache */

static int64_t half_cache16(void) {
    return ROWS / 16 * cache16_bytes(128);
} /* keys or values of ROWS positions */

typedef struct bench {
    const tp_kernel *k;
    tp_tensor w;
    uint8_t *data, *body, *bytes; /* bytes: plain codes, read or unpacked */
    float *x, *y, *z;             /* (ROWS * COLS) */
    int8_t *q;                    /* (TOKENS, COLS) */
    int16_t *q16;
    void *ordered, *scratch;
    int32_t *sums;
    double lanes[16];
    tp_lm_head_acts acts;
} bench;

static void run(bench *b) {
    const tp_kernel *k = b->k;
    const int32_t sum[TOKENS] = {0};
    float scale;
    int32_t total;
    switch (k->op) {
        case TP_OP_MATVEC:
            k->matvec(&b->w, b->ordered, 0, sum, 1, 0, b->w.rows, b->sums, b->w.rows);
            break;
        case TP_OP_MATMUL:
            k->matmul(&b->w, k->activation_order ? b->ordered : b->q, sum, TOKENS, 0, b->w.rows,
                      b->sums, b->w.rows, b->scratch, (tp_prefetch){0, 0});
            break;
        case TP_OP_UNPACK: k->unpack(&b->w, 0, b->w.rows, b->bytes, COLS); break;
        case TP_OP_PACK:
            memset(b->body, 0, b->w.nbytes);
            k->pack((const int8_t *)b->bytes, &b->w, b->body);
            break;
        case TP_OP_DEQUANTIZE:
            for (int r = 0; r < ROWS; r++) k->dequantize(b->bytes + r * COLS, COLS, b->x, 1, b->y);
            break;
        case TP_OP_MATVEC_F32:
            k->matvec_f32(b->bytes, (int64_t)tp_body_nbytes(k->layout, 1, COLS), ROWS, COLS, b->x,
                          1, b->z, b->y);
            break;
        case TP_OP_LM_HEAD: k->lm_head(&b->w, &b->acts, 1, 0, b->w.rows, b->y, b->w.rows); break;
        case TP_OP_QUANTIZE: k->quantize(b->x, COLS, b->q, &scale, &total); break;
        case TP_OP_QUANTIZE16: k->quantize16(b->x, COLS, b->q16, b->y, b->sums); break;
        case TP_OP_RESCALE: k->rescale(b->sums, 3.0f, b->x, COLS, b->y); break;
        case TP_OP_RMSNORM: k->rmsnorm(b->x, b->z, COLS, 1e-5f, b->y); break;
        case TP_OP_GLU: k->glu(b->x, b->z, COLS, TP_ACT_SILU, b->y); break;
        case TP_OP_ROPE:
        case TP_OP_ROPEPAIRS: k->rope(b->y, COLS / 128, 128, b->z); break;
        case TP_OP_CACHE16:
            k->cache16(b->x, b->z, 128, 5, b->bytes, b->bytes + cache16_bytes(128));
            break;
        case TP_OP_HADAMARD: k->hadamard(b->x, b->z, NULL, COLS, 512, b->y); break;
        case TP_OP_CONV:
            k->conv(&(tp_conv){.x = b->y,
                               .weights = b->x,
                               .window = b->z,
                               .tokens = 1,
                               .channels = COLS,
                               .taps = 4,
                               .stride = COLS});
            break;
        case TP_OP_DELTA_RULE:
            k->delta_rule(&(tp_delta_rule){.q = b->z,
                                           .k = b->z,
                                           .v = b->z,
                                           .decay = b->z,
                                           .beta = b->z,
                                           .state = b->x,
                                           .out = b->y,
                                           .tokens = 1,
                                           .size = 128,
                                           .columns = 16,
                                           .heads = 1});
            break;
        case TP_OP_WIDEN: k->widen((const uint16_t *)b->q16, COLS, b->y); break;
        case TP_OP_ENCODE: total = (int32_t)k->encode(b->x, COLS, b->bytes); break;
        case TP_OP_ABS_SUM: k->abs_sum(b->x, COLS, b->lanes); break;
        case TP_OP_CHECKSUM: total = (int32_t)k->checksum(b->bytes, ROWS * COLS / 8, 5); break;
        case TP_OP_ABSMEAN: k->absmean(b->x, COLS, 2.0f, b->q); break;
        case TP_OP_ATTENTION:
        case TP_OP_ATTENTION16:
            k->attention(
                &(tp_attention){.q = b->x,
                                .out = b->y,
                                .k = b->bytes,
                                .v = b->bytes + (k->op == TP_OP_ATTENTION16 ? half_cache16() : 0),
                                .tokens = 1,
                                .heads = HEADS,
                                .head_dim = 128,
                                .stride = HEADS * 128,
                                .n_pos = ROWS,
                                .scale = 0.1f,
                                .ld = ROWS,
                                .work = b->z});
            break;
        case TP_OP_READ: total = (int32_t)k->roofline(b->bytes, ROWS * COLS); break;
        case TP_OP_DOTS: total = (int32_t)k->roofline((const uint8_t *)"\1\1", 4096); break;
        case TP_OP_COUNT: break;
    }
}

/* Bytes of weights, cache or floats that a run reads; for matmul and dots, the products that it
 * makes. */
static double work(const bench *b) {
    switch (b->k->op) {
        case TP_OP_MATVEC:
        case TP_OP_UNPACK:
        case TP_OP_PACK:
        case TP_OP_LM_HEAD: return (double)b->w.nbytes;
        case TP_OP_MATMUL: return (double)b->w.rows * COLS * TOKENS;
        case TP_OP_MATVEC_F32:
        case TP_OP_DEQUANTIZE: return (double)tp_body_nbytes(b->k->layout, ROWS, COLS);
        case TP_OP_ATTENTION: return 2.0 * ROWS * 128 * 4;
        case TP_OP_ATTENTION16: return 2.0 * (double)half_cache16();
        case TP_OP_CACHE16: return 2.0 * 128 * 4;
        case TP_OP_DELTA_RULE: return 4.0 * 16 * 128;
        case TP_OP_WIDEN: return 2.0 * COLS;
        case TP_OP_RMSNORM:
        case TP_OP_RESCALE:
        case TP_OP_GLU: return 8.0 * COLS;
        case TP_OP_CHECKSUM:
        case TP_OP_READ: return (double)ROWS * COLS;
        case TP_OP_DOTS:
            return b->k->isa == TP_ISA_SCALAR
                       ? 0
                       : 4096 * round_products(b->k); /* scalar only defines the result */
        default: return 4.0 * COLS;
    }
}

static int prepare(bench *b) {
    const tp_kernel *k = b->k;
    uint64_t state = 158;
    const int linear = k->matvec || k->matmul,
              weights = linear || k->lm_head || k->unpack || k->pack;
    b->w = tp_test_tensor(weights ? k->layout : TP_LAYOUT_U8, ROWS, COLS);
    const uint64_t whole = b->w.nbytes;
    b->w.nbytes = tp_body_nbytes(b->w.layout, ROWS, COLS);
    const size_t floats = (size_t)ROWS * COLS * sizeof(float),
                 ordered = k->activation_order
                               ? k->activation_order->bytes(k->activation_order, TOKENS, COLS)
                               : 1;
    b->data = tp_alloc(1, whole);
    b->body = tp_alloc(1, b->w.nbytes);
    b->bytes = tp_alloc(1, floats);
    b->x = tp_alloc(1, floats);
    b->y = tp_alloc(1, floats);
    b->z = tp_alloc(1, floats);
    b->q = tp_alloc(TOKENS, COLS);
    b->q16 = tp_alloc(COLS, sizeof *b->q16);
    b->sums = tp_alloc((size_t)ROWS * TOKENS + COLS, sizeof *b->sums);
    b->ordered = tp_alloc(1, ordered);
    b->scratch =
        tp_alloc(1, linear ? tp_linear_scratch((tp_kernel_plan){k, NULL}, ROWS, COLS, TOKENS) : 1);
    if (!b->data || !b->body || !b->bytes || !b->x || !b->y || !b->z || !b->q || !b->q16 ||
        !b->sums || !b->ordered || !b->scratch)
        return TP_ERR_MEMORY;
    if (tp_random_body(&b->w, b->data, b->body, &state)) return TP_ERR_MEMORY;
    b->w.data = b->body;
    for (int i = 0; i < COLS * HEADS; i++) {
        b->x[i] = tp_random_float(&state);
        b->z[i] = tp_random_float(&state);
    }
    for (int i = 0; i < TOKENS * COLS; i++)
        b->q[i] = (int8_t)tp_random(&state); /* zeros would be too fast */
    for (int i = 0; i < COLS; i++) b->q16[i] = (int16_t)tp_random(&state);
    if (k->op == TP_OP_ATTENTION)
        for (int i = 0; i < ROWS * 128; i++) ((float *)(void *)b->bytes)[i] = b->x[i % COLS];
    if (k->op == TP_OP_ATTENTION16)
        for (int p = 0; p < ROWS; p++) {
            uint8_t *const block = b->bytes + p / 16 * cache16_bytes(128);
            tp_kernel_best(TP_OP_CACHE16, TP_LAYOUT_F32, k->isa)
                ->cache16(b->x + p, b->z + p, 128, p % 16, block, block + half_cache16());
        }
    if (k->op == TP_OP_PACK) tp_random_weights((int8_t *)b->bytes, (int64_t)ROWS * COLS, &state);
    for (int t = 0; k->activation_order && t < TOKENS; t += k->activation_order->tokens)
        k->activation_order->fill(k->activation_order, b->q, TOKENS, COLS,
                                  t / k->activation_order->tokens, b->ordered);
    b->acts = (tp_lm_head_acts){.x = b->x,
                                .q = b->q16,
                                .step = b->z,
                                .bias = b->sums,
                                .padded = COLS,
                                .blocks = COLS / 256};
    return TP_OK;
}

static int bench_kernel(int index, double *per_second) {
    bench b = {.k = tp_kernel_at(index)};
    if (!b.k || !per_second) return TP_ERR_ARGUMENT;
    if (!tp_cpu_has(b.k->isa)) return TP_ERR_ISA;
    int status = prepare(&b);
    double best = 1e30;
    for (int round = 0; !status && round < ROUNDS; round++) {
        int runs = 0;
        const double begin = now();
        while (now() - begin < 2e-3) {
            run(&b);
            runs++;
        }
        const double took = (now() - begin) / runs;
        best = took < best ? took : best;
    }
    if (!status) *per_second = work(&b) / best;
    void *const parts[] = {b.data, b.body, b.bytes, b.x,       b.y,      b.z,
                           b.q,    b.q16,  b.sums,  b.ordered, b.scratch};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) tp_free(parts[i]);
    return status;
}

int tp_bench_kernel(int index, double *per_second) {
    const tp_fpenv before = tp_fpenv_enter();
    const int status = bench_kernel(index, per_second);
    tp_fpenv_leave(before);
    return status;
}
