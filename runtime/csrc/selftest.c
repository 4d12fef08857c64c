#include "selftest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fpenv.h"
#include "kernels/attention/cache16.h"
#include "kernels/common.h"
#if TP_GUARD_PAGES
#include <sys/mman.h>
#include <unistd.h>
#endif

/* Buffers of a check, to the byte, freed together: from malloc, where a sanitizer sees what is read outside, or each ending (1) or
 * beginning (2) at a page that nobody may touch, which any machine sees. */
int tp_check_guarded;

typedef struct heap {
    void *all[24], *maps[24];
    size_t sizes[24];
    int count, failed;
    uint64_t digest;
} heap;

#if TP_GUARD_PAGES
static void *guarded(size_t bytes, void **map, size_t *size) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *size = (bytes + page - 1) / page * page + 2 * page;
    *map = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*map == MAP_FAILED) return NULL;
    uint8_t *const begin = (uint8_t *)*map + page, *const end = (uint8_t *)*map + *size - page;
    if (mprotect(*map, page, PROT_NONE) == 0 && mprotect(end, page, PROT_NONE) == 0) return tp_check_guarded == 1 ? end - bytes : begin;
    munmap(*map, *size);
    return NULL;
}

static void unmap(void *map, size_t size) { munmap(map, size); }
#else
static void *guarded(size_t bytes, void **map, size_t *size) {
    (void)bytes, (void)map, (void)size;
    return NULL;
}

static void unmap(void *map, size_t size) { (void)map, (void)size; }
#endif

static void *take(heap *h, size_t bytes) {
    void *map = NULL;
    size_t size = 0;
    void *p = h->count == 24 ? NULL : tp_check_guarded ? guarded(bytes, &map, &size) : malloc(bytes ? bytes : 1);
    if (!p) {
        h->failed = 1;
        return NULL;
    }
    memset(p, 0x55, bytes);
    h->maps[h->count] = map;
    h->sizes[h->count] = size;
    return h->all[h->count++] = p;
}

static void release(heap *h) {
    for (int i = 0; i < h->count; i++) {
        if (h->maps[i]) unmap(h->maps[i], h->sizes[i]);
        else free(h->all[i]);
    }
}

static float *random_floats(heap *h, int64_t n, uint64_t *state) {
    float *p = take(h, (size_t)n * sizeof(float));
    for (int64_t i = 0; p && i < n; i++) p[i] = tp_random_float(state);
    return p;
}

/* Takes `want` into the digest (FNV-1a) and compares. */
static int differ(heap *h, const void *want, const void *got, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) h->digest = (h->digest ^ ((const uint8_t *)want)[i]) * UINT64_C(1099511628211);
    return memcmp(want, got, bytes) != 0;
}

/* The same for floats; any NaN is as good as another. */
static int differ_floats(heap *h, float *want, float *got, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (want[i] != want[i]) want[i] = tp_bits_float(TP_NAN_BITS);
        if (got[i] != got[i]) got[i] = tp_bits_float(TP_NAN_BITS);
    }
    return differ(h, want, got, (size_t)n * 4);
}

enum { POISONED = 4 };      /* tp_check_shape.extreme from here on */

/* Puts what extreme says into one of n places. */
static void poison(float *x, int64_t n, int extreme, uint64_t *state) {
    static const uint32_t bits[] = {TP_NAN_BITS, TP_NAN_BITS | 0x80000000u, TP_INF_BITS};
    if (extreme >= POISONED) x[tp_random(state) % (uint64_t)n] = tp_bits_float(bits[extreme - POISONED]);
}

/* Whether all n are NaN, if NaN went in. */
static int laundered(const float *got, int64_t n, int extreme) {
    int64_t nans = 0;
    for (int64_t i = 0; i < n; i++) nans += got[i] != got[i];
    return (extreme == POISONED || extreme == POISONED + 1) && nans != n;
}

/* The same code everywhere; where no byte says 3, the highest byte there is. */
static void fill_codes(const tp_tensor *w, uint8_t *body, int code) {
    int8_t *weights = tp_alloc((size_t)w->rows, (size_t)w->cols);
    if (w->layout == TP_LAYOUT_U8) memset(body, code, w->nbytes);
    else if (code == 3) memset(body, 0xff, w->nbytes);
    else if (weights) {
        memset(weights, code - 1, (size_t)(w->rows * w->cols));
        memset(body, 0, tp_body_nbytes(w->layout, w->rows, w->cols));
        tp_kernel_best(TP_OP_PACK, w->layout, TP_ISA_SCALAR)->pack(weights, w, body);
    }
    tp_free(weights);
}

/* Whether sums are not those of the codes that scalar unpacks: an order of activations that is wrong is wrong for every kernel. */
static int differ_plain(const tp_tensor *w, const int8_t *q, int32_t less, const int32_t *got) {
    const tp_kernel *unpack = tp_kernel_best(TP_OP_UNPACK, w->layout, TP_ISA_SCALAR);
    uint8_t *codes = tp_alloc(1, (size_t)w->cols);
    int wrong = !codes;
    for (int64_t r = 0; codes && r < w->rows; r++) {
        int32_t sum = -less;
        if (unpack) unpack->unpack(w, r, r + 1, codes, w->cols);
        else memcpy(codes, (const uint8_t *)w->data + r * w->cols, (size_t)w->cols);
        for (int64_t i = 0; i < w->cols; i++) sum += codes[i] * q[i];
        wrong |= sum != got[r];
    }
    tp_free(codes);
    return wrong;
}

static void run_linear(const tp_kernel *k, const tp_tensor *w, const void *acts, const int32_t *sum_q, int64_t n, int64_t row0, int64_t row1, int32_t *out,
                       void *scratch, tp_prefetch next) {
    if (k->matvec) k->matvec(w, acts, sum_q[0], row0, row1, out);
    else k->matmul(w, acts, sum_q, n, row0, row1, out, w->rows, scratch, next);
}

static int check_linear(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state, heap *h) {
    const int64_t n = k->op == TP_OP_MATVEC ? 1 : s.n;
    if (!tp_body_nbytes(k->layout, 4, s.cols)) s.cols = (s.cols + 255) / 256 * 256;
    if (!tp_body_nbytes(k->layout, s.rows, s.cols)) s.rows = (s.rows + 3) / 4 * 4;
    if (!tp_test_tensor(k->layout, s.rows, s.cols).nbytes) s.rows = (s.rows + 31) / 32 * 32;
    if (k->layout == TP_LAYOUT_TL2 && s.extreme == 3) s.extreme = 2;        /* what means nothing has a sign here, unpacked not */
    const int64_t padded = tp_padded_cols(s.cols);
    tp_tensor w = tp_test_tensor(k->layout, s.rows, s.cols);
    w.nbytes = tp_body_nbytes(k->layout, s.rows, s.cols);      /* to the byte: whatever reads behind it is seen */
    uint8_t *data = take(h, tp_tensor_nbytes(k->layout, s.rows, s.cols)), *body = take(h, w.nbytes);
    int8_t *q = take(h, (size_t)(n * padded));
    int32_t *sum = take(h, (size_t)n * 4), *want = take(h, (size_t)(n * s.rows) * 4), *got = take(h, (size_t)(n * s.rows) * 4);
    const size_t scratch_bytes = tp_linear_scratch((tp_way){k, NULL}, s.rows, s.cols, n);
    const size_t arranged_bytes = k->arrangement ? k->arrangement->bytes(k->arrangement, n, s.cols) : 64;
    uint8_t *scratch = tp_check_guarded ? take(h, scratch_bytes) : tp_alloc(1, scratch_bytes);     /* both whole lines, aligned */
    void *arranged = tp_check_guarded ? take(h, arranged_bytes) : tp_alloc(1, arranged_bytes);
    int wrong = -1;
    if (!h->failed && scratch && arranged && tp_random_body(&w, data, body, state) == 0) {
        w.data = body;
        if (s.extreme && s.extreme < POISONED) fill_codes(&w, body, s.extreme == 3 ? 3 : 2);
        for (int64_t t = 0; t < n; t++) {
            sum[t] = 0;
            for (int64_t i = 0; i < padded; i++) {
                const int v = i < s.cols ? (int)(tp_random(state) % 256) - 128 : 0;
                q[t * padded + i] = (int8_t)(i < s.cols && s.extreme == 1 ? 127 : i < s.cols && s.extreme && s.extreme < POISONED ? -128 : v);
                sum[t] += q[t * padded + i];
            }
        }
        const int64_t pieces = k->arrangement ? (n + k->arrangement->tokens - 1) / k->arrangement->tokens : 0;
        for (int64_t i = 0; i < pieces; i++) k->arrangement->fill(k->arrangement, q, n, s.cols, i, arranged);
        const int64_t cut = s.rows / 3;     /* in two calls, to meet other row remainders */
        const void *acts = k->arrangement ? arranged : (const void *)q;
        const tp_prefetch next = {(uintptr_t)body, w.nbytes};
        run_linear(scalar, &w, scalar->arrangement ? arranged : (const void *)q, sum, n, 0, s.rows, want, scratch, next);
        if (cut) run_linear(k, &w, acts, sum, n, 0, cut, got, scratch, next);
        run_linear(k, &w, acts, sum, n, cut, s.rows, got + cut, scratch, next);
        wrong = differ(h, want, got, (size_t)(n * s.rows) * 4) || (k->op == TP_OP_MATVEC && differ_plain(&w, q, sum[0], got));
    }
    if (tp_check_guarded) return wrong;
    tp_free(arranged);
    tp_free(scratch);
    return wrong;
}

static int check_lm_head(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state, heap *h) {
    const int whole = tp_takes_acts16(k->layout);
    const int64_t unit = !whole ? 1 : k->layout == TP_LAYOUT_Q8_0 ? 32 : 256;
    const int64_t cols = (s.cols + unit - 1) / unit * unit;
    tp_tensor w = tp_test_tensor(k->layout, s.rows, cols);
    tp_lm_head_acts acts = {.padded = (cols + 63) / 64 * 64, .blocks = (cols + 255) / 256};
    uint8_t *data = take(h, w.nbytes);
    float *x = random_floats(h, s.n * cols, state), *want = take(h, (size_t)(s.n * s.rows) * 4), *got = take(h, (size_t)(s.n * s.rows) * 4);
    acts.x = x;
    acts.q = take(h, (size_t)(s.n * acts.padded) * 2);
    acts.step = take(h, (size_t)(s.n * acts.blocks) * 4);
    acts.bias = take(h, (size_t)(s.n * acts.padded));
    if (h->failed) return -1;
    tp_random_tensor(&w, data, state);
    w.data = data;
    if (s.extreme && s.extreme < POISONED)
        for (int64_t i = 0; i < s.n * cols; i++) x[i] = s.extreme == 1 ? 3.0f : -3.0f;
    poison(x, cols, s.extreme, state);
    const tp_kernel *quantize16 = tp_kernel_best(TP_OP_QUANTIZE16, TP_LAYOUT_F32, TP_ISA_SCALAR);
    for (int64_t t = 0; whole && t < s.n; t++)
        quantize16->quantize16(x + t * cols, cols, acts.q + t * acts.padded, acts.step + t * acts.blocks, acts.bias + t * (acts.padded / 4));
    const int64_t cut = s.rows / 3;
    scalar->lm_head(&w, &acts, s.n, 0, s.rows, want, s.rows);
    if (cut) k->lm_head(&w, &acts, s.n, 0, cut, got, s.rows);
    k->lm_head(&w, &acts, s.n, cut, s.rows, got + cut, s.rows);
    const int bad = laundered(got, s.rows, whole && s.extreme >= POISONED ? POISONED : s.extreme);   /* no 16-bit code for infinity either */
    return differ_floats(h, want, got, s.n * s.rows) || bad;
}

/* Four rows and one, with blocks of columns. */
static int check_matvec_f32(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state, heap *h) {
    const int64_t unit = k->layout == TP_LAYOUT_U8 ? 16 : 128, blocks = 1 + s.n % 3, cols = (s.cols + unit - 1) / unit * unit * blocks;
    const int64_t ld = k->layout == TP_LAYOUT_U8 ? cols : cols / 4;
    uint8_t *codes = take(h, (size_t)(s.rows * ld));
    float *scales = random_floats(h, s.rows * blocks, state), *x = random_floats(h, cols, state);
    float *want = take(h, (size_t)s.rows * 4), *got = take(h, (size_t)s.rows * 4);
    if (h->failed) return -1;
    for (int64_t i = 0; i < s.rows * ld; i++) codes[i] = (uint8_t)(tp_random(state) % (k->layout == TP_LAYOUT_U8 ? 4 : 256));
    poison(x, cols, s.extreme, state);
    scalar->matvec_f32(codes, ld, s.rows, cols, scales, blocks, x, want);
    k->matvec_f32(codes, ld, s.rows, cols, scales, blocks, x, got);
    return laundered(got, s.rows, s.extreme) || differ_floats(h, want, got, s.rows);
}

static int check_dequantize(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state, heap *h) {
    const int64_t blocks = s.cols % 3 == 0 ? 3 : s.cols % 2 == 0 && s.rows % 2 ? 2 : 1;
    const int64_t bytes = k->layout == TP_LAYOUT_U8 ? s.cols : tp_padded_cols(s.cols) / 4;
    uint8_t *codes = take(h, (size_t)bytes);
    float *scales = random_floats(h, blocks, state), *want = take(h, (size_t)s.cols * 4), *got = take(h, (size_t)s.cols * 4);
    if (h->failed) return -1;
    for (int64_t i = 0; i < bytes; i++) codes[i] = (uint8_t)(tp_random(state) % (k->layout == TP_LAYOUT_U8 ? 4 : 256));
    scalar->dequantize(codes, s.cols, scales, blocks, want);
    k->dequantize(codes, s.cols, scales, blocks, got);
    return differ_floats(h, want, got, s.cols);
}

/* Packing gives scalar's bytes, and unpacking, in two calls and into longer rows, what was packed; of any bytes what scalar gives. */
static int check_twins(const tp_kernel *k, tp_check_shape s, uint64_t *state, heap *h) {
    const tp_kernel *const scalar[2] = {tp_kernel_best(TP_OP_PACK, k->layout, TP_ISA_SCALAR), tp_kernel_best(TP_OP_UNPACK, k->layout, TP_ISA_SCALAR)};
    tp_tensor w = tp_test_tensor(k->layout, s.rows, s.cols);
    if (!w.nbytes) w = tp_test_tensor(k->layout, (s.rows + 31) / 32 * 32, (s.cols + 255) / 256 * 256);
    const size_t nbytes = tp_body_nbytes(k->layout, w.rows, w.cols), count = (size_t)(w.rows * w.cols);
    const int64_t ld = w.cols + 3, cut = w.rows / 3;
    int8_t *codes = take(h, count);
    uint8_t *body = take(h, nbytes), *again = take(h, nbytes), *want = take(h, (size_t)(w.rows * ld)), *got = take(h, (size_t)(w.rows * ld));
    if (h->failed) return -1;
    memset(body, 0, nbytes);
    memset(again, 0, nbytes);
    tp_random_weights(codes, (int64_t)count, state);
    scalar[0]->pack(codes, &w, body);
    (k->op == TP_OP_PACK ? k : scalar[0])->pack(codes, &w, again);
    int wrong = differ(h, body, again, nbytes);
    w.data = body;
    for (int random = 0; random <= (k->op == TP_OP_UNPACK); random++) {
        const tp_kernel *unpack = k->op == TP_OP_UNPACK ? k : scalar[1];
        if (cut) unpack->unpack(&w, 0, cut, got, ld);
        unpack->unpack(&w, cut, w.rows, got + cut * ld, ld);
        if (random) scalar[1]->unpack(&w, 0, w.rows, want, ld);
        else
            for (size_t i = 0; i < count; i++) want[(int64_t)i / w.cols * ld + (int64_t)i % w.cols] = (uint8_t)(codes[i] + 1);
        wrong |= differ(h, want, got, (size_t)(w.rows * ld));
        for (size_t i = 0; i < nbytes; i++) body[i] = (uint8_t)tp_random(state);
    }
    return wrong;
}

static int check_attention(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state, heap *h) {
    /* Two of three times several tokens, whose heads stand between those of other caches. */
    const int64_t n_pos = s.rows, dim = s.cols, heads = s.n, tokens = 1 + (n_pos + 1) % 3 * 2, stride = (tokens > 1 ? heads + 1 : heads) * dim;
    const int sixteen = k->op == TP_OP_ATTENTION16;
    const int64_t last = n_pos + tokens - 1, ld = (last + 15) / 16 * 16, n = (tokens - 1) * stride + heads * dim, skip = sixteen ? (n_pos - 1) % 5 : 0;
    float *q = random_floats(h, n, state), *work = take(h, (size_t)tp_attention_work(tokens, heads, dim, ld) * 4);
    float *want = take(h, (size_t)n * 4), *got = take(h, (size_t)n * 4);
    float *keys = random_floats(h, last * dim, state), *values = random_floats(h, last * dim, state);
    const int64_t bytes = cache16_bytes(cache16_dim(dim)), blocks = (last + 15) / 16;
    uint8_t *keys16 = take(h, (size_t)(blocks * bytes)), *values16 = take(h, (size_t)(blocks * bytes));
    if (h->failed) return -1;
    for (int64_t i = 0; s.extreme && i < last * dim; i++) {     /* integers at their bounds: all equal, or one that outgrows the others */
        keys[i] = s.extreme % 2 || i % dim == 0 ? 1e3f : 0.0f;
        values[i] = s.extreme % 2 || i / dim % 3 ? 1e3f : -1e3f;
    }
    if (s.extreme == 1 && n_pos > skip + 1)         /* a position that no query looks at, unless a dot product wraps */
        for (int64_t i = skip * dim; i < (skip + 1) * dim; i++) keys[i] = values[i] = -1e3f;
    for (int64_t i = 0; s.extreme && i < n; i++) q[i] = s.extreme % 2 || i % dim == 0 ? 10.0f : 0.0f;
    poison(q, dim, s.extreme, state);
    if (s.extreme >= POISONED && tokens > 1) {      /* NaN in what only the last token sees */
        memset(keys + (last - 1) * dim, 0xff, (size_t)dim * 4);
        memset(values + (last - 1) * dim, 0xff, (size_t)dim * 4);
    }
    if (sixteen) {
        memset(keys16, 0, (size_t)(blocks * bytes));
        memset(values16, 0, (size_t)(blocks * bytes));
        const tp_kernel *store = tp_kernel_best(TP_OP_CACHE16, TP_LAYOUT_F32, k->isa);
        for (int64_t p = 0; p < last; p++)
            store->cache16(keys + p * dim, values + p * dim, dim, p % 16, keys16 + p / 16 * bytes, values16 + p / 16 * bytes);
    }
    tp_attention a = {.q = q, .out = want, .k = sixteen ? keys16 : (void *)keys, .v = sixteen ? values16 : (void *)values, .tokens = tokens,
                      .heads = heads, .head_dim = dim, .stride = stride, .n_pos = n_pos, .skip = skip, .scale = s.extreme ? 3.0f : 0.125f,
                      .ld = ld, .work = work};
    scalar->attention(&a);
    a.out = got;
    a.prefetch = tokens == 1;
    k->attention(&a);
    int wrong = laundered(got, dim, s.extreme) || differ_floats(h, want, got, n);
    for (int64_t i = 0; s.extreme == 1 && i < dim; i++)      /* sums that wrap do so in scalar too */
        wrong |= !(got[i] > 999.0f && got[i] < 1001.0f);
    return wrong;
}

static int check_cache16(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state, heap *h) {
    const int64_t dim = (s.cols + 1) / 2 * 2, bytes = cache16_bytes(cache16_dim(dim));
    float *keys = random_floats(h, dim, state), *values = random_floats(h, dim, state);
    uint8_t *blocks[4];     /* keys and values of scalar, then of k */
    for (int i = 0; i < 4; i++) {
        blocks[i] = take(h, (size_t)bytes);
        if (h->failed) return -1;
        memset(blocks[i], 0x55, (size_t)bytes);
    }
    for (int64_t p = 0; p < 16; p++) {
        for (int64_t i = 0; i < dim; i++) {
            keys[i] = tp_random_float(state) * (p == 3 ? 0.0f : p == 4 && i ? 1e-20f : p == 5 ? 1e-37f : 1);
            values[i] = tp_random_float(state) * (p == 3 ? 0.0f : p == 4 && i ? 1e-20f : p == 5 ? 1e-37f : 1);
        }
        if (p == 6) poison(keys, dim, s.extreme, state);
        if (p == 7) poison(values, dim, s.extreme, state);
        scalar->cache16(keys, values, dim, p, blocks[0], blocks[1]);
        k->cache16(keys, values, dim, p, blocks[2], blocks[3]);
    }
    return differ(h, blocks[0], blocks[2], (size_t)bytes) | differ(h, blocks[1], blocks[3], (size_t)bytes);
}

static int check_elementwise(const tp_kernel *k, const tp_kernel *scalar, tp_check_shape s, uint64_t *state, heap *h) {
    const int64_t n = s.cols;
    float *x = random_floats(h, n, state), *w = random_floats(h, n, state), *want = take(h, (size_t)n * 4), *got = take(h, (size_t)n * 4);
    int8_t *q0 = take(h, (size_t)n), *q1 = take(h, (size_t)n);
    int32_t *sums = take(h, (size_t)n * 4);
    float scale[2] = {0, 0};
    int32_t sum[2] = {0, 0};
    int wrong = 0;
    if (h->failed) return -1;
    for (int64_t i = 0; i < n; i++) x[i] *= s.extreme == 1 ? 100.0f : s.extreme && s.extreme < POISONED ? 1e-9f : 4.0f;
    poison(x, n, s.extreme, state);
    int64_t at = 0;
    while (at < n - 1 && x[at] - x[at] == 0) at++;      /* where it went, for glu */
    switch (k->op) {
        case TP_OP_QUANTIZE:
            scalar->quantize(x, n, q0, &scale[0], &sum[0]);
            k->quantize(x, n, q1, &scale[1], &sum[1]);
            if (s.extreme >= POISONED) {
                for (int64_t i = 0; i < n; i++) wrong |= q1[i] != 0;
                wrong |= tp_float_bits(scale[1]) != TP_NAN_BITS || sum[1] != 0;
            }
            return wrong | differ(h, q0, q1, (size_t)n) || differ(h, &scale[0], &scale[1], 4) || sum[0] != sum[1];
        case TP_OP_RESCALE:
            for (int64_t i = 0; i < n; i++) sums[i] = (int32_t)tp_random(state) - (1 << 30);
            scalar->rescale(sums, x[0], w, n, want);
            k->rescale(sums, x[0], w, n, got);
            return differ_floats(h, want, got, n);
        case TP_OP_RMSNORM:
            scalar->rmsnorm(x, w, n, 1e-5f, want);
            k->rmsnorm(x, w, n, 1e-5f, got);
            return laundered(got, n, s.extreme) || differ_floats(h, want, got, n);
        case TP_OP_GLU:
            for (int act = TP_ACT_RELU2; act <= TP_ACT_GELU_TANH; act++) {
                scalar->glu(x, w, n, act, want);
                k->glu(x, w, n, act, got);
                wrong |= differ_floats(h, want, got, n) | laundered(got + at, 1, s.extreme);
            }
            return wrong;
        case TP_OP_ROPE:
        case TP_OP_ROPEPAIRS:
            memcpy(want, x, (size_t)n * 4);
            memcpy(got, x, (size_t)n * 4);
            scalar->rope(want, 1, n / 2 * 2, w);
            k->rope(got, 1, n / 2 * 2, w);
            return differ_floats(h, want, got, n);
        case TP_OP_READ: {
            const int64_t bytes = n * 4 / 256 * 256;
            return k->roofline((const uint8_t *)x, bytes) != scalar->roofline((const uint8_t *)x, bytes);
        }
        case TP_OP_DOTS: {
            const uint8_t us[2] = {(uint8_t)(1 + n % 255), (uint8_t)(200 + n % 50)};
            return k->roofline(us, n) != scalar->roofline(us, n);
        }
        default: return 0;      /* quantize16 is part of the q8_0 and q6_k heads */
    }
}

int tp_check_kernel(const tp_kernel *k, tp_check_shape shape, uint64_t seed, uint64_t *digest) {
    const tp_kernel *scalar = tp_kernel_best(k->op, k->layout, TP_ISA_SCALAR);
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    heap h = {.digest = *digest};
    int result;
    switch (k->op) {
        case TP_OP_MATVEC:
        case TP_OP_MATMUL: result = check_linear(k, scalar, shape, &state, &h); break;
        case TP_OP_UNPACK:
        case TP_OP_PACK: result = check_twins(k, shape, &state, &h); break;
        case TP_OP_MATVEC_F32: result = check_matvec_f32(k, scalar, shape, &state, &h); break;
        case TP_OP_DEQUANTIZE: result = check_dequantize(k, scalar, shape, &state, &h); break;
        case TP_OP_LM_HEAD: result = check_lm_head(k, scalar, shape, &state, &h); break;
        case TP_OP_ATTENTION:
        case TP_OP_ATTENTION16: result = check_attention(k, scalar, shape, &state, &h); break;
        case TP_OP_CACHE16: result = check_cache16(k, scalar, shape, &state, &h); break;
        default: result = check_elementwise(k, scalar, shape, &state, &h); break;
    }
    release(&h);
    *digest = h.digest;
    return result;
}

/* What the scalar kernels gave on this data (without the poisoned rows) when they were checked against numpy: the same on
 * every machine. */
#define KNOWN_ANSWER UINT64_C(0xa1b475d61382f4c5)

static TP_NOINLINE int self_test(char *report, size_t size) {
    static const tp_check_shape shapes[] = {{7, 128, 1, 0},  {33, 384, 5, 0}, {50, 640, 13, 0}, {3, 2560, 2, 1}, {3, 8192, 3, 2},
                                            {5, 1280, 4, 3}, {9, 640, 2, 4},  {9, 640, 5, 5},   {9, 640, 2, 6}};
    size_t used = 0;
    int failures = 0;
    uint64_t scalar = UINT64_C(14695981039346656037), ignored = 0;
    if (report && size) report[0] = 0;
    for (int i = 0; i <= tp_kernel_count(); i++) {
        const tp_kernel *k = tp_kernel_at(i);       /* the line behind the last kernel is the known answer */
        const char *verdict = "good";
        if (!k) verdict = scalar == KNOWN_ANSWER ? "good" : "WRONG";
        else if (!tp_cpu_has(k->isa)) verdict = "not on this CPU";
        else
            for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
                uint64_t *digest = k->isa == TP_ISA_SCALAR && shapes[j].extreme < POISONED ? &scalar : &ignored;
                const int wrong = tp_check_kernel(k, shapes[j], 100 * (uint64_t)k->op + j + 1, digest);
                if (wrong < 0) return -1;
                if (wrong) verdict = "WRONG";
            }
        failures += strcmp(verdict, "WRONG") == 0;
        if (report && used < size) {
            const size_t room = size - used;
            const size_t wrote = k ? (size_t)snprintf(report + used, room, "%s: %s\n", k->symbol, verdict)
                                   : (size_t)snprintf(report + used, room, "known answer of scalar: %s (%016llx)\n", verdict, (unsigned long long)scalar);
            used += wrote < room ? wrote : room;
        }
    }
    return failures;
}

int tp_self_test(char *report, size_t size) {
    const tp_fpenv before = tp_fpenv_enter();
    const int failures = self_test(report, size);
    tp_fpenv_leave(before);
    return failures;
}
