/* Head product of float weights. The including file defines
 * WEIGHT (element type), LOAD(p) and LOAD_N(p, n). One token: 4 rows at a time, to hide the latency of the lane additions.
 * Several tokens: TILE_ROWS x TILE_TOKENS lanes in registers. */
#include "../lanes16.h"
#include "../stream.h"

#if LANES_NATIVE == 16
enum { TILE_ROWS = 4, TILE_TOKENS = 4 };
#else
enum { TILE_ROWS = 2, TILE_TOKENS = 2 };
#endif

LANES_INLINE void tile(const WEIGHT *w, int64_t cols, const float *x, const int rows, const int tokens, float *out, int64_t ld) {
    lanes acc[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < tokens; t++) acc[r][t] = lanes_splat(0.0f);
    int64_t i = 0;
    for (; i + 16 <= cols; i += 16) {
        lanes xs[4];
#pragma GCC unroll 4
        for (int t = 0; t < tokens; t++) xs[t] = lanes_load(x + t * cols + i);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const WEIGHT *p = w + r * cols + i;
            const lanes ws = LOAD(p);
            if (tokens == 1 && i * (int)sizeof(WEIGHT) % 64 == 0) stream_ahead(p);
#pragma GCC unroll 4
            for (int t = 0; t < tokens; t++) acc[r][t] = lanes_add(acc[r][t], lanes_mul(ws, xs[t]));
        }
    }
    if (i < cols)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int t = 0; t < tokens; t++)
                acc[r][t] = lanes_add(acc[r][t], lanes_mul(LOAD_N(w + r * cols + i, cols - i), lanes_load_n(x + t * cols + i, cols - i)));
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int t = 0; t < tokens; t++) out[t * ld + r] = lanes_tree(acc[r][t]);
}

LANES_INLINE void head_float(const tp_tensor *w, const tp_head_acts *x, int64_t n, int64_t row0, int64_t row1, float *out, int64_t ld) {
    assert(0 <= row0 && row1 <= w->rows && ld >= row1 - row0);
    const int64_t cols = w->cols;
    const WEIGHT *const data = w->data;
    int64_t t = 0, r;
    for (; t + TILE_TOKENS <= n; t += TILE_TOKENS) {    /* a few tokens stay in L1 while the rows of the chunk pass */
        for (r = row0; r + TILE_ROWS <= row1; r += TILE_ROWS)
            tile(data + r * cols, cols, x->x + t * cols, TILE_ROWS, TILE_TOKENS, out + t * ld + r - row0, ld);
        for (; r < row1; r++) tile(data + r * cols, cols, x->x + t * cols, 1, TILE_TOKENS, out + t * ld + r - row0, ld);
    }
    for (; t < n; t++) {
        for (r = row0; r < row1; r++) tile(data + r * cols, cols, x->x + t * cols, 1, 1, out + t * ld + r - row0, ld);
    }
}
