/* Rows and products of any tensor that tp_tensor_check may meet: no byte after its end is read, and
 * every kernel gives the bits of the first that runs. */
#include <math.h>

#include "tests/fuzz/c/input.h"

static int has_header(const tp_tensor *t) {
    return t->layout == TP_LAYOUT_T2 || t->layout == TP_LAYOUT_T158;
}

/* Bytes of a tensor whose header holds so many scales; tp_tensor_nbytes counts one. */
static uint64_t bytes_with_scales(const tp_tensor *t, uint64_t scales) {
    const uint64_t unit = t->layout == TP_LAYOUT_T158 ? 64 : 32;
    return tp_tensor_nbytes(t->layout, t->rows, t->cols) - 64 +
           (32 + 4 * scales + unit - 1) / unit * unit;
}

/* A tensor without its data. What depends on each other fits in most inputs, and not in some. */
static tp_tensor take_tensor(input *in, uint32_t *grid /* (2) */, uint64_t *flags) {
    tp_tensor t = {.layout = (int8_t)take(in, 1), .scale = 1};
    t.rows = take_size(in);
    t.cols = take_size(in);
    for (int i = 0; i < 3; i++) t.tile[i] = (int32_t)take_size(in);
    *flags = take(in, 1);
    const uint64_t scale = take(in, 4), other = (uint64_t)take_size(in);
    for (int i = 0; i < 2; i++) grid[i] = (uint32_t)take_size(in);
    if (*flags & 1) memcpy(&t.scale, &scale, 4);
    t.rotated = *flags % 32 == 31 ? 2 : 0;
    t.nbytes = tp_tensor_nbytes(t.layout, t.rows, t.cols);
    if (has_header(&t) && t.nbytes) t.nbytes = bytes_with_scales(&t, (uint64_t)grid[0] * grid[1]);
    if (*flags & 2) t.nbytes = other;
    return t;
}

static void compare_floats(const float *a, const float *b, size_t n, int isa, int layout) {
    for (size_t i = 0; i < n; i++)
        DEMAND(memcmp(a + i, b + i, 4) == 0 || (isnan(a[i]) && isnan(b[i])),
               "isa %d layout %d at %zu: %g %g", isa, layout, i, (double)a[i], (double)b[i]);
}

static void rows_and_head(const tp_tensor *t, input in, int64_t n, int legal) {
    const size_t rows = (size_t)t->rows, cols = (size_t)t->cols, count = (size_t)n;
    float *row = memory(4 * cols), *x = memory(4 * count * cols);
    float *first = memory(4 * count * rows), *out = memory(4 * count * rows);
    fill(in, (uint8_t *)x, 4 * count * cols);
    DEMAND(tp_tensor_row(t, -1, row) != TP_OK && tp_tensor_row(t, t->rows, row) != TP_OK, "rows");
    tp_tensor_row(t, 0, row);
    tp_tensor_row(t, t->rows - 1, row);
    for (int isa = 0, done = 0; isa < tp_isa_count(); isa++) {
        if (tp_head_matmul(isa, t, x, n, done ? out : first) != TP_OK) continue;
        if (done && legal) compare_floats(first, out, count * rows, isa, t->layout);
        done = 1;
    }
    free(out);
    free(first);
    free(x);
    free(row);
}

/* agree: whether every kernel has to give the same sums. */
static void products(const tp_tensor *t, input in, int64_t n, int agree) {
    const size_t rows = (size_t)t->rows, cols = (size_t)t->cols, count = (size_t)n;
    int8_t *q = memory(count * cols);
    int32_t *first = memory(4 * count * rows), *out = memory(4 * count * rows);
    fill(in, (uint8_t *)q, count * cols);
    for (int kernel = 0, done = 0; kernel < tp_kernel_count(); kernel++) {
        if (tp_kernel_matmul_int(kernel, t, q, n, done ? out : first) != TP_OK) continue;
        DEMAND(!done || !agree || memcmp(first, out, 4 * count * rows) == 0, "kernel %d layout %d",
               kernel, t->layout);
        done = 1;
    }
    free(out);
    free(first);
    free(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, data + size};
    uint32_t grid[2];
    uint64_t flags;
    tp_tensor t = take_tensor(&in, grid, &flags);
    const int64_t n = (int64_t)take(&in, 1) % 14 + 1;
    if (t.nbytes > MOST_BYTES) return 0;
    uint8_t *bytes = memory((size_t)t.nbytes);
    fill(in, bytes, (size_t)t.nbytes);
    if (has_header(&t) && t.nbytes >= 12) { /* bytes of the input would hardly ever be one */
        memcpy(bytes, t.layout == TP_LAYOUT_T2 ? "T2\1" : "T158", 4);
        memcpy(bytes + 4, grid, 8);
    }
    t.data = bytes;
    const int agree = flags & 4 ? 0 : tame(&t);
    float few[8];
    const int64_t most = 8 * MOST_BYTES;
    if (t.rows > 0 && t.cols > 0 && t.rows <= most && t.cols <= most && t.rows * t.cols <= most) {
        rows_and_head(&t, in, n, !(flags & 4));
        products(&t, in, n, agree);
    } else DEMAND(tp_tensor_row(&t, 0, few) != TP_OK, "a row longer than all bytes allow");
    free(bytes);
    return 0;
}
