/* Matrix products of int8 activations over the pool: put the activations into the kernel's order
 * once, run the kernel over chunks of rows, rescale the sums while they are in cache. */
#include <assert.h>
#include <string.h>

#include "internal.h"

enum { MOST_ROWS = 128, STORES_AHEAD = 16 };

/* Rows per chunk: for one token about 24 kB of weights, for many tokens what a panel holds.
 * Unpacked rows stay in the L2 cache. */
static int64_t grain_of(tp_kernel_plan plan, int64_t rows, uint64_t nbytes) {
    if (plan.kernel->op == TP_OP_MATMUL || plan.unpack) return 32;
    /* 32 rows of TL2 stand together, in tiles of more. */
    if (plan.kernel->layout == TP_LAYOUT_TL2) return MOST_ROWS;
    const int64_t grain = 24576 / (int64_t)(nbytes / (uint64_t)rows + 1);
    return grain < 8 ? 8 : grain > MOST_ROWS ? MOST_ROWS : grain / 8 * 8; /* whole groups of T158 */
}

/* Scratch of a thread: sums (n, grain) of a job and of its gate, the kernel's panel, unpacked codes
 * (grain, cols). */
size_t tp_linear_scratch(tp_kernel_plan plan, int64_t rows, int64_t cols, int64_t n) {
    cols = tp_padded_cols(cols);
    /* No layout has less than 1 bit per weight. */
    const int64_t grain = grain_of(plan, rows, (uint64_t)(rows * cols / 8));
    return (size_t)(2 * tp_round64(n * grain * 4) + tp_round64(plan.kernel->panel_rows * cols) +
                    (plan.unpack ? grain * cols : 0));
}

typedef struct linear_jobs {
    const tp_kernel *rescale;
    tp_linear_job *jobs;
    int count;
    const tp_activation_order *order; /* jobs with another order are skipped */
    const tp_acts8 *acts;
    int64_t n, cols;
    uint8_t *scratch;
    size_t scratch_bytes;
} linear_jobs;

static void order_pieces(void *ctx, int thread, int64_t begin, int64_t end) {
    const linear_jobs *l = ctx;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        l->order->fill(l->order, l->acts->q, l->n, l->cols, i, l->acts->ordered);
}

static tp_prefetch some_rows(const tp_tensor *w, int64_t row, int64_t rows) {
    const uint64_t row_bytes = w->nbytes / (uint64_t)w->rows;
    return (tp_prefetch){(uintptr_t)w->data + row_bytes * (uint64_t)row,
                         row_bytes * (uint64_t)rows};
}

/* next: the chunk that follows, which products of many tokens prefetch, since the memory would be
 * idle otherwise. */
static void run_kernel(const linear_jobs *l, const tp_linear_job *job, int64_t row0, int64_t row1,
                       int32_t *out, int64_t ld, uint8_t *panel, tp_prefetch next) {
    const tp_kernel *k = job->plan.kernel;
    const uint8_t *acts = l->order ? l->acts->ordered : (const void *)l->acts->q;
    const int64_t padded = tp_padded_cols(l->cols);
    tp_tensor w = job->codes;
    if (job->plan.unpack) {
        uint8_t *codes = panel + tp_round64(k->panel_rows * padded);
        tp_unpack_rows(job->plan.unpack, &job->parts, row0, row1, codes, padded);
        w = (tp_tensor){
            .data = codes, .rows = row1 - row0, .cols = padded, .layout = TP_LAYOUT_U8, .scale = 1};
        row1 -= row0;
        row0 = 0;
    }
    if (k->matmul) {
        k->matmul(&w, acts, l->acts->sum, l->n, row0, row1, out, ld, panel, next);
        return;
    }
    k->matvec(&w, acts, (int64_t)l->order->bytes(l->order, 1, l->cols), l->acts->sum, l->n, row0,
              row1, out, ld);
}

/* Sums of a chunk, and the scales that make floats of them. */
typedef struct chunk_sums {
    int32_t *sums; /* (n, grain) */
    float scales[MOST_ROWS];
    int unscaled; /* 1: some scales are 0 */
} chunk_sums;

static void find_scales(const tp_linear_job *job, int64_t row0, int64_t row1, chunk_sums *c) {
    tp_row_scales(&job->parts, row0, row1, c->scales);
    c->unscaled = 0;
    for (int64_t r = 0; r < row1 - row0; r++) c->unscaled |= c->scales[r] == 0;
}

static void rescale_token(const linear_jobs *l, const chunk_sums *c, int64_t t, int64_t grain,
                          int64_t rows, float *y) {
    const float s = l->acts->s[t];
    l->rescale->rescale(c->sums + t * grain, s, c->scales, rows, y);
    /* Under a scale of 0 a sum may be any, and an infinite quotient times 0 would be NaN. */
    for (int64_t r = 0; c->unscaled && r < rows; r++)
        if (c->scales[r] == 0) y[r] = s * 0.0f + 0.0f;
}

static void run_chunk(const linear_jobs *l, const tp_linear_job *job, int64_t chunk,
                      uint8_t *scratch) {
    const tp_tensor *w = job->w;
    const int64_t row0 = chunk * job->grain,
                  row1 = row0 + job->grain < w->rows ? row0 + job->grain : w->rows,
                  rows = row1 - row0;
    const int64_t sums_bytes = tp_round64(l->n * job->grain * 4);
    uint8_t *const panel = scratch + 2 * sums_bytes;
    const tp_prefetch following =
        job->plan.kernel->matmul ? some_rows(w, row1, rows) : (tp_prefetch){0, 0};
    if (job->sums) {
        run_kernel(l, job, row0, row1, job->sums + row0, w->rows, panel, following);
        return;
    }
    chunk_sums own, gate;
    own.sums = (int32_t *)(void *)scratch;
    run_kernel(l, job, row0, row1, own.sums, job->grain, panel,
               job->glu ? some_rows(job[1].w, row0, rows) : following);
    find_scales(job, row0, row1, &own);
    if (job->glu) {
        gate.sums = (int32_t *)(void *)(scratch + sums_bytes);
        run_kernel(l, job + 1, row0, row1, gate.sums, job->grain, panel, following);
        find_scales(job + 1, row0, row1, &gate);
    }
    for (int64_t t = 0; t < l->n; t++) {
        float *y = job->y + t * w->rows + row0;
        if (t + STORES_AHEAD < l->n) /* the lines of other tokens lie far apart */
            for (int64_t r = 0; r < rows; r += 16)
                __builtin_prefetch(y + STORES_AHEAD * w->rows + r, 1, 3);
        rescale_token(l, &own, t, job->grain, rows, y);
        if (!job->glu) continue;
        float gates[MOST_ROWS];
        rescale_token(l, &gate, t, job->grain, rows, gates);
        job->glu->glu(gates, y, rows, job->activation, y);
    }
}

static void run_chunks(void *ctx, int thread, int64_t begin, int64_t end) {
    const linear_jobs *l = ctx;
    int64_t before = 0;
    for (int j = 0; j < l->count; j++) {
        const tp_linear_job *job = &l->jobs[j];
        if (job->plan.kernel->activation_order != l->order) continue;
        for (int64_t i = begin > before ? begin : before; i < end && i < before + job->chunks; i++)
            run_chunk(l, job, i - before, l->scratch + (size_t)thread * l->scratch_bytes);
        before += job->chunks;
    }
}

void tp_linears_run(tp_pool *pool, const tp_kernel *rescale, tp_linear_job *jobs, int count,
                    tp_acts8 *acts, int64_t n, uint8_t *scratch, size_t scratch_bytes) {
    for (int j = 0; j < count; j++) {
        jobs[j].parts = tp_ternary_of(jobs[j].w);
        jobs[j].codes = tp_direct_codes(&jobs[j].parts);
        jobs[j].grain = grain_of(jobs[j].plan, jobs[j].w->rows, jobs[j].w->nbytes);
        jobs[j].chunks =
            jobs[j].y || jobs[j].sums ? (jobs[j].w->rows + jobs[j].grain - 1) / jobs[j].grain : 0;
    }
    for (int j = 0; j < count; j++) {
        linear_jobs l = {rescale,      jobs, count,           jobs[j].plan.kernel->activation_order,
                         acts,         n,    jobs[j].w->cols, scratch,
                         scratch_bytes};
        int64_t chunks = 0;
        int done = 0;
        for (int i = 0; i < count; i++) {
            if (jobs[i].plan.kernel->activation_order != l.order) continue;
            done |= i < j;
            chunks += jobs[i].chunks;
        }
        if (done) continue;
        if (l.order)
            tp_pool_run(pool, order_pieces, &l, (n + l.order->tokens - 1) / l.order->tokens, 1);
        tp_pool_run(pool, run_chunks, &l, chunks, 1);
    }
}
