/* tp_unpack and tp_pack with any layout, tiling, shape and body. Legal weights come back from the
 * body that tp_pack makes of them. */
#include "tests/fuzz/c/input.h"

/* Bytes of a body (see tp_pack), or 0 if no tensor has the shape. */
static uint64_t body_bytes_of(int layout, int64_t rows, int64_t cols) {
    const uint64_t whole = tp_tensor_nbytes(layout, rows, cols);
    switch (layout) {
        case TP_LAYOUT_T2:
        case TP_LAYOUT_T158: return whole ? whole - 64 : 0;
        case TP_LAYOUT_I2_S:
        case TP_LAYOUT_TL1:
        case TP_LAYOUT_TL2: return whole ? whole - 32 : 0;
        default: return whole;
    }
}

static void pack_again(int layout, const int32_t *tile, int64_t rows, int64_t cols,
                       const int8_t *codes, uint64_t body_bytes) {
    uint8_t *body = memory(body_bytes);
    int8_t *again = memory((size_t)(rows * cols));
    DEMAND(tp_pack(layout, tile, rows, cols, codes, body, body_bytes) == TP_OK, "%d", layout);
    DEMAND(tp_unpack(layout, tile, rows, cols, body, body_bytes, again) == TP_OK, "%d", layout);
    DEMAND(memcmp(codes, again, (size_t)(rows * cols)) == 0, "%d", layout);
    free(again);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, data + size};
    const int layout = (int8_t)take(&in, 1);
    const int64_t rows = take_size(&in), cols = take_size(&in);
    int32_t tile[3];
    for (int i = 0; i < 3; i++) tile[i] = (int32_t)take_size(&in);
    const int has_tile = take(&in, 1) % 8 != 0;
    const uint64_t right = body_bytes_of(layout, rows, cols), other = (uint64_t)take_size(&in);
    const uint64_t body_bytes = take(&in, 1) % 8 ? right : other;
    /* A body of the right size has at most 8 weights per byte. */
    const int fits = right && right <= MOST_BYTES && right == body_bytes;
    if (right > MOST_BYTES && right == body_bytes) return 0;
    if (fits) DEMAND((uint64_t)(rows * cols) <= 8 * right, "layout %d", layout);
    const size_t held = body_bytes <= MOST_BYTES ? (size_t)body_bytes : 1;
    const size_t weights = fits ? (size_t)(rows * cols) : 1;
    uint8_t *body = memory(held);
    int8_t *codes = memory(weights);
    fill(in, body, held);
    const int32_t *const tiling = has_tile ? tile : NULL;
    if (tp_unpack(layout, tiling, rows, cols, body, body_bytes, codes) == TP_OK) {
        DEMAND(fits, "layout %d, %llu bytes", layout, (unsigned long long)body_bytes);
        int legal = 1;
        for (size_t i = 0; i < weights; i++) {
            DEMAND(codes[i] >= -1 && codes[i] <= 2, "layout %d: %d", layout, codes[i]);
            legal &= codes[i] <= 1;
        }
        if (legal) pack_again(layout, tiling, rows, cols, codes, body_bytes);
        fill(in, (uint8_t *)codes, weights); /* weights that mean nothing */
        memset(body, 0, held);
        DEMAND(tp_pack(layout, tiling, rows, cols, codes, body, body_bytes) == TP_OK, "%d", layout);
    }
    free(codes);
    free(body);
    return 0;
}
