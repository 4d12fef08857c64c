/* What a conversion does with blocks of rows of floats: encoding, and making ternary by absmean.
 * 16-bit floats are widened piece by piece, and a piece stays in the L1 cache. */
#include "fpenv.h"
#include "internal.h"

enum { PIECE = 4096 }; /* whole blocks of every type */

typedef struct floats {
    const uint8_t *values;
    int64_t size; /* bytes of one */
    const tp_kernel *widen;
    float piece[PIECE];
} floats;

/* Describes rows of a plain type, in `out`. Returns a tp_status. */
static int floats_of(int from, int64_t rows, int64_t cols, const void *values, floats *out) {
    if (from != TP_LAYOUT_F32 && from != TP_LAYOUT_F16 && from != TP_LAYOUT_BF16)
        return TP_ERR_LAYOUT;
    out->size = from == TP_LAYOUT_F32 ? 4 : 2;
    if (!values || (uintptr_t)values % (uintptr_t)out->size) return TP_ERR_ARGUMENT;
    out->values = values;
    out->widen = from == TP_LAYOUT_F32 ? NULL : tp_kernel_best(TP_OP_WIDEN, from, tp_best_isa());
    return tp_tensor_nbytes(from, rows, cols) ? TP_OK : TP_ERR_SHAPE;
}

/* n <= PIECE of them, from the one at `at` on. */
static const float *piece_of(floats *f, int64_t at, int64_t n) {
    const void *from = f->values + at * f->size;
    if (!f->widen) return from;
    f->widen->widen(from, n, f->piece);
    return f->piece;
}

static int64_t piece_length(int64_t left) { return left < PIECE ? left : PIECE; }

static TP_NOINLINE unsigned encode(const tp_kernel *k, floats *f, int64_t n, int64_t size_to,
                                   int64_t per, uint8_t *out) {
    _Alignas(64) float unused[PIECE]; /* no type takes more */
    unsigned flags = 0;
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t count = piece_length(n - at);
        flags |= k->encode(piece_of(f, at, count), count,
                           out ? (void *)(out + at / per * size_to) : (void *)unused);
    }
    return flags;
}

int tp_encode(int to, int from, int64_t rows, int64_t cols, const void *values, void *out,
              int *survived) {
    floats f;
    const int status = floats_of(from, rows, cols, values, &f);
    if (status) return status;
    const tp_kernel *k = tp_kernel_best(TP_OP_ENCODE, to, tp_best_isa());
    if (!k) return TP_ERR_LAYOUT;
    const int64_t per = tp_takes_acts16(to) ? to == TP_LAYOUT_Q8_0 ? 32 : 256 : 1;
    const int64_t size = (int64_t)tp_tensor_nbytes(to, 1, per);
    if (!tp_tensor_nbytes(to, rows, cols)) return TP_ERR_SHAPE;
    if (!survived || (per == 1 && (uintptr_t)out % (uintptr_t)size)) return TP_ERR_ARGUMENT;
    const tp_fpenv before = tp_fpenv_enter();
    const unsigned flags = encode(k, &f, rows * cols, size, per, out);
    tp_fpenv_leave(before);
    if (flags & TP_ENCODE_NOT_FINITE) return TP_ERR_FINITE;
    if (flags & TP_ENCODE_OVERFLOW) return TP_ERR_OVERFLOW;
    *survived = per == 1 && !(flags & TP_ENCODE_ROUNDED);
    return TP_OK;
}

static TP_NOINLINE void abs_sums(floats *f, int64_t rows, int64_t cols, double *sums) {
    const tp_kernel *k = tp_kernel_best(TP_OP_ABS_SUM, TP_LAYOUT_F32, tp_best_isa());
    for (int64_t r = 0; r < rows; r++) {
        double lanes[16] = {0};
        for (int64_t c = 0; c < cols; c += PIECE) {
            const int64_t count = piece_length(cols - c);
            k->abs_sum(piece_of(f, r * cols + c, count), count, lanes);
        }
        for (int half = 8; half; half /= 2)
            for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
        sums[r] = lanes[0];
    }
}

int tp_abs_sums(int from, int64_t rows, int64_t cols, const void *values, double *sums) {
    floats f;
    const int status = sums ? floats_of(from, rows, cols, values, &f) : TP_ERR_ARGUMENT;
    if (status) return status;
    const tp_fpenv before = tp_fpenv_enter();
    abs_sums(&f, rows, cols, sums);
    tp_fpenv_leave(before);
    return TP_OK;
}

static TP_NOINLINE void absmean_codes(floats *f, int64_t n, float reciprocal, int8_t *codes) {
    const tp_kernel *k = tp_kernel_best(TP_OP_ABSMEAN, TP_LAYOUT_F32, tp_best_isa());
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t count = piece_length(n - at);
        k->absmean(piece_of(f, at, count), count, reciprocal, codes + at);
    }
}

int tp_absmean_codes(int from, int64_t rows, int64_t cols, const void *values, float reciprocal,
                     int8_t *codes) {
    floats f;
    const int status = codes ? floats_of(from, rows, cols, values, &f) : TP_ERR_ARGUMENT;
    if (status) return status;
    const tp_fpenv before = tp_fpenv_enter();
    absmean_codes(&f, rows * cols, reciprocal, codes);
    tp_fpenv_leave(before);
    return TP_OK;
}
