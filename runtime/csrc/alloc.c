/* Memory of models, sessions and pools: zeroed and aligned to cache lines. */
#include <stdlib.h>

#include "internal.h"

/* calloc hands out pages that cost nothing before they are used, which matters for a big KV cache.
 * The pointer that free() needs lies just before the aligned one. */
void *tp_alloc(uint64_t count, uint64_t size) {
    if (size && count > (SIZE_MAX - 128) / size) return NULL;
    void *real = calloc(1, (size_t)(count * size) + 64 + sizeof(void *));
    if (!real) return NULL;
    const uintptr_t p = ((uintptr_t)real + sizeof(void *) + 63) / 64 * 64;
    ((void **)p)[-1] = real;
    return (void *)p;
}

void tp_free(void *p) {
    if (p) free(((void **)p)[-1]);
}
