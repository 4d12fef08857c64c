#define CACHED float
#define LOAD lanes_load
#define LOAD_N lanes_load_n
#include "attention.h"

void attention_f32_neon(const float *q, int64_t heads, const void *keys, const void *values, int64_t n_pos, int64_t head_dim, float scale, int cold,
                            float *scores, int64_t ld, float *out) {
    attention_body(q, heads, keys, values, n_pos, head_dim, scale, cold, scores, ld, out);
}
