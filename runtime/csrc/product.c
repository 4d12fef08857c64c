/* Matrix products over the pool. Of int8 activations: arrange them once, run a kernel over chunks of rows, rescale while
 * the integers are still in cache. Of float ones: make a panel of rows floats, multiply it as the head would. */
#include <assert.h>
#include <string.h>

#include "internal.h"

static int64_t round64(int64_t v) { return (v + 63) / 64 * 64; }

enum { MOST_ROWS = 128, STORES_AHEAD = 16 };

/* Rows a chunk: for one token about 24 kB of weights, for many what a panel holds. Unpacked rows stay in the second cache. */
static int64_t grain_of(tp_way way, int64_t rows, uint64_t nbytes) {
    if (way.kernel->op == TP_OP_MATMUL || way.unpack) return 32;
    if (way.kernel->layout == TP_LAYOUT_TL2) return MOST_ROWS;      /* its rows stand 32 together in tiles of more */
    const int64_t grain = 24576 / (int64_t)(nbytes / (uint64_t)rows + 1);
    return grain < 8 ? 8 : grain > MOST_ROWS ? MOST_ROWS : grain / 8 * 8;      /* whole groups of T158 */
}

/* Of a thread's scratch: sums (n, grain) of a job and of its gate, the kernel's panel, unpacked codes (grain, cols). */
size_t tp_linear_scratch(tp_way way, int64_t rows, int64_t cols, int64_t n) {
    cols = tp_padded_cols(cols);
    const int64_t grain = grain_of(way, rows, (uint64_t)(rows * cols / 8));     /* no layout we have is below 1 bit */
    return (size_t)(2 * round64(n * grain * 4) + round64(way.kernel->panel_rows * cols) + (way.unpack ? grain * cols : 0));
}

typedef struct linears {
    const tp_kernel *rescale;
    tp_linear_job *jobs;
    int count;
    const tp_arrangement *arrangement;      /* jobs with another one are skipped */
    const tp_acts8 *acts;
    int64_t n, cols;
    uint8_t *scratch;
    size_t scratch_bytes;
} linears;

static void arrange_pieces(void *ctx, int thread, int64_t begin, int64_t end) {
    const linears *l = ctx;
    (void)thread;
    for (int64_t i = begin; i < end; i++) l->arrangement->fill(l->arrangement, l->acts->q, l->n, l->cols, i, l->acts->arranged);
}

static tp_prefetch some_rows(const tp_tensor *w, int64_t row, int64_t rows) {
    const uint64_t row_bytes = w->nbytes / (uint64_t)w->rows;
    return (tp_prefetch){(uintptr_t)w->data + row_bytes * (uint64_t)row, row_bytes * (uint64_t)rows};
}

/* matvec kernels take one token: several go one after the other over a chunk of rows, which stays in the cache. `next`: the chunk
 * behind, which products of many tokens ask for, since they would keep the memory waiting otherwise. */
static void run_kernel(const linears *l, const tp_linear_job *job, int64_t row0, int64_t row1, int32_t *out, int64_t ld, uint8_t *panel, tp_prefetch next) {
    const tp_kernel *k = job->way.kernel;
    const uint8_t *acts = l->arrangement ? l->acts->arranged : (const void *)l->acts->q;
    const int64_t padded = tp_padded_cols(l->cols);
    tp_tensor w = job->codes;
    if (job->way.unpack) {
        uint8_t *codes = panel + round64(k->panel_rows * padded);
        tp_unpack_rows(job->way.unpack, &job->parts, row0, row1, codes, padded);
        w = (tp_tensor){.data = codes, .rows = row1 - row0, .cols = padded, .layout = TP_LAYOUT_U8, .scale = 1};
        row1 -= row0;
        row0 = 0;
    }
    if (k->matmul) {
        k->matmul(&w, acts, l->acts->sum, l->n, row0, row1, out, ld, panel, next);
        return;
    }
    const size_t stride = l->n > 1 ? l->arrangement->bytes(l->arrangement, 1, l->cols) : 0;
    for (int64_t t = 0; t < l->n; t++) k->matvec(&w, acts + (size_t)t * stride, l->acts->sum[t], row0, row1, out + t * ld);
}

/* Sums of a chunk, and what makes floats of them. */
typedef struct chunk_sums {
    int32_t *sums;              /* (n, grain) */
    float scales[MOST_ROWS];
    int unscaled;               /* some scales are 0 */
} chunk_sums;

static void find_scales(const tp_linear_job *job, int64_t row0, int64_t row1, chunk_sums *c) {
    tp_row_scales(&job->parts, row0, row1, c->scales);
    c->unscaled = 0;
    for (int64_t r = 0; r < row1 - row0; r++) c->unscaled |= c->scales[r] == 0;
}

static void rescale_token(const linears *l, const chunk_sums *c, int64_t t, int64_t grain, int64_t rows, float *y) {
    const float s = l->acts->s[t];
    l->rescale->rescale(c->sums + t * grain, s, c->scales, rows, y);
    /* Under a scale of 0 sums may be any, and a quotient that is infinite would make NaN of it. */
    for (int64_t r = 0; c->unscaled && r < rows; r++)
        if (c->scales[r] == 0) y[r] = s * 0.0f + 0.0f;
}

static void run_chunk(const linears *l, const tp_linear_job *job, int64_t chunk, uint8_t *scratch) {
    const tp_tensor *w = job->w;
    const int64_t row0 = chunk * job->grain, row1 = row0 + job->grain < w->rows ? row0 + job->grain : w->rows, rows = row1 - row0;
    const int64_t sums_bytes = round64(l->n * job->grain * 4);
    uint8_t *const panel = scratch + 2 * sums_bytes;
    const tp_prefetch behind = job->way.kernel->matmul ? some_rows(w, row1, rows) : (tp_prefetch){0, 0};
    if (job->sums) {
        run_kernel(l, job, row0, row1, job->sums + row0, w->rows, panel, behind);
        return;
    }
    chunk_sums here, gate;
    here.sums = (int32_t *)(void *)scratch;
    run_kernel(l, job, row0, row1, here.sums, job->grain, panel, job->glu ? some_rows(job[1].w, row0, rows) : behind);
    find_scales(job, row0, row1, &here);
    if (job->glu) {
        assert(job[1].grain == job->grain);
        gate.sums = (int32_t *)(void *)(scratch + sums_bytes);
        run_kernel(l, job + 1, row0, row1, gate.sums, job->grain, panel, behind);
        find_scales(job + 1, row0, row1, &gate);
    }
    for (int64_t t = 0; t < l->n; t++) {
        float *y = job->y + t * w->rows + row0;
        if (t + STORES_AHEAD < l->n)    /* lines of other tokens lie far apart */
            for (int64_t r = 0; r < rows; r += 16) __builtin_prefetch(y + STORES_AHEAD * w->rows + r, 1, 3);
        rescale_token(l, &here, t, job->grain, rows, y);
        if (!job->glu) continue;
        float gates[MOST_ROWS];
        rescale_token(l, &gate, t, job->grain, rows, gates);
        job->glu->glu(gates, y, rows, job->activation, y);
    }
}

static void run_chunks(void *ctx, int thread, int64_t begin, int64_t end) {
    const linears *l = ctx;
    int64_t before = 0;
    for (int j = 0; j < l->count; j++) {
        const tp_linear_job *job = &l->jobs[j];
        if (job->way.kernel->arrangement != l->arrangement) continue;
        for (int64_t i = begin > before ? begin : before; i < end && i < before + job->chunks; i++)
            run_chunk(l, job, i - before, l->scratch + (size_t)thread * l->scratch_bytes);
        before += job->chunks;
    }
}

void tp_linears_run(tp_pool *pool, const tp_kernel *rescale, tp_linear_job *jobs, int count, tp_acts8 *acts, int64_t n, uint8_t *scratch, size_t scratch_bytes) {
    for (int j = 0; j < count; j++) {
        jobs[j].parts = tp_ternary_of(jobs[j].w);
        jobs[j].codes = tp_direct_codes(&jobs[j].parts);
        jobs[j].grain = grain_of(jobs[j].way, jobs[j].w->rows, jobs[j].w->nbytes);
        jobs[j].chunks = jobs[j].y || jobs[j].sums ? (jobs[j].w->rows + jobs[j].grain - 1) / jobs[j].grain : 0;
    }
    for (int j = 0; j < count; j++) {
        linears l = {rescale, jobs, count, jobs[j].way.kernel->arrangement, acts, n, jobs[j].w->cols, scratch, scratch_bytes};
        int64_t chunks = 0;
        int done = 0;
        for (int i = 0; i < count; i++) {
            if (jobs[i].way.kernel->arrangement != l.arrangement) continue;
            done |= i < j;
            chunks += jobs[i].chunks;
        }
        if (done) continue;
        if (l.arrangement) tp_pool_run(pool, arrange_pieces, &l, (n + l.arrangement->tokens - 1) / l.arrangement->tokens, 1);
        tp_pool_run(pool, run_chunks, &l, chunks, 1);
    }
}

typedef struct float_linear {
    tp_way dequantize, matvec_f32;
    int direct;
    const tp_kernel *head;
    const tp_tensor *w;
    tp_ternary parts;
    const float *x;
    int64_t n, grain;
    uint8_t *scratch;
    size_t scratch_bytes;
    float *y;
} float_linear;

/* Rows a panel: it stays in the cache between being made and being read. */
static int64_t float_grain(int64_t cols) {
    const int64_t grain = 65536 / cols / 4 * 4;
    return grain < 4 ? 4 : grain > 64 ? 64 : grain;
}

static size_t float_panel(int64_t rows, int64_t cols) {
    const int64_t grain = float_grain(cols);
    return (size_t)round64((rows < grain ? rows : grain) * cols * (int64_t)sizeof(float));
}

size_t tp_float_scratch(int64_t rows, int64_t cols) { return float_panel(rows, cols) + tp_dequantize_scratch(cols); }

int tp_matvec_f32_fits(tp_way matvec_f32, const tp_tensor *w, int64_t n) {
    const int64_t width = w->cols / tp_ternary_of(w).col_blocks;
    return n == 1 && width % (matvec_f32.unpack ? 16 : 128) == 0;
}

/* Scales, then codes if they are unpacked, lie where a panel of floats would. */
static void direct_rows(const float_linear *l, int64_t row0, int64_t rows, float *scales, float *y) {
    const tp_ternary *t = &l->parts;
    const int64_t cols = l->w->cols;
    for (int64_t r = 0; r < rows; r++) tp_scales_of_row(t, row0 + r, scales + r * t->col_blocks);
    if (!l->matvec_f32.unpack) {
        l->matvec_f32.kernel->matvec_f32((const uint8_t *)t->body.data + row0 * (cols / 4), cols / 4, rows, cols, scales, t->col_blocks, l->x, y);
        return;
    }
    uint8_t *codes = (uint8_t *)(scales + rows * t->col_blocks);
    tp_unpack_rows(l->matvec_f32.unpack, t, row0, row0 + rows, codes, cols);
    l->matvec_f32.kernel->matvec_f32(codes, cols, rows, cols, scales, t->col_blocks, l->x, y);
}

static void float_chunk(void *ctx, int thread, int64_t begin, int64_t end) {
    const float_linear *l = ctx;
    const int64_t cols = l->w->cols, rows = l->w->rows;
    uint8_t *scratch = l->scratch + (size_t)thread * l->scratch_bytes;
    float *panel = (float *)(void *)scratch;
    for (int64_t i = begin; i < end; i++) {
        const int64_t row0 = i * l->grain, here = row0 + l->grain < rows ? l->grain : rows - row0;
        if (l->direct) {
            direct_rows(l, row0, here, panel, l->y + row0);
            continue;
        }
        for (int64_t r = 0; r < here; r++) tp_dequantize_row(l->dequantize, &l->parts, row0 + r, panel + r * cols, scratch + float_panel(rows, cols));
        const tp_tensor w = {.data = panel, .rows = here, .cols = cols, .nbytes = (uint64_t)(here * cols) * sizeof(float), .layout = TP_LAYOUT_F32};
        const tp_lm_head_acts acts = {.x = l->x};
        l->head->lm_head(&w, &acts, l->n, 0, here, l->y + row0, rows);
    }
}

void tp_linear_float_run(tp_pool *pool, tp_way dequantize, tp_way matvec_f32, const tp_kernel *head_f32, const tp_tensor *w, const float *x, int64_t n, uint8_t *scratch,
                         size_t scratch_bytes, float *y) {
    float_linear l = {dequantize, matvec_f32, tp_matvec_f32_fits(matvec_f32, w, n), head_f32, w, tp_ternary_of(w), x, n, float_grain(w->cols), scratch, scratch_bytes, y};
    tp_pool_run(pool, float_chunk, &l, (w->rows + l.grain - 1) / l.grain, 1);
}

size_t tp_acts16_bytes(int64_t n, int64_t cols) {
    const int64_t padded = round64(cols), blocks = (cols + 255) / 256;
    return (size_t)(round64(n * padded * 2) + round64(n * padded) + round64(n * blocks * 4));
}

void tp_acts16_place(void *memory, int64_t n, int64_t cols, tp_lm_head_acts *out) {
    uint8_t *p = memory;
    out->padded = round64(cols);
    out->blocks = (cols + 255) / 256;
    out->q = (int16_t *)(void *)p;
    out->bias = (int32_t *)(void *)(p + round64(n * out->padded * 2));
    out->step = (float *)(void *)(p + round64(n * out->padded * 2) + round64(n * out->padded));
}

typedef struct head_job {
    const tp_kernel *head, *quantize16;
    const tp_tensor *w;
    tp_lm_head_acts acts;
    int64_t n;
    float *out;
} head_job;

static void quantize_tokens(void *ctx, int thread, int64_t begin, int64_t end) {
    const head_job *h = ctx;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        h->quantize16->quantize16(h->acts.x + t * h->w->cols, h->w->cols, h->acts.q + t * h->acts.padded, h->acts.step + t * h->acts.blocks,
                                  h->acts.bias + t * (h->acts.padded / 4));
}

static void head_rows(void *ctx, int thread, int64_t begin, int64_t end) {
    const head_job *h = ctx;
    (void)thread;
    h->head->lm_head(h->w, &h->acts, h->n, begin, end, h->out + begin, h->w->rows);
}

void tp_head_run(tp_pool *pool, const tp_kernel *head, const tp_kernel *quantize16, const tp_tensor *w, const float *x, int64_t n, void *acts16,
                 float *out) {
    head_job h = {head, quantize16, w, {.x = x}, n, out};
    if (acts16) {
        tp_acts16_place(acts16, n, w->cols, &h.acts);
        tp_pool_run(pool, quantize_tokens, &h, n, 1);
    }
    const int64_t grain = 32768 / (int64_t)(w->nbytes / (uint64_t)w->rows + 1) / 4 * 4;
    tp_pool_run(pool, head_rows, &h, w->rows, n > 1 ? 64 : grain < 16 ? 16 : grain > 256 ? 256 : grain);
}
