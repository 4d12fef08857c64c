/* Buffers of a check, and the comparison of what kernels wrote into them. */
#include <stdlib.h>
#include <string.h>

#include "checks.h"
#if TP_GUARD_PAGES
#include <sys/mman.h>
#include <unistd.h>
#endif

int tp_check_guarded;

#if TP_GUARD_PAGES
static void *guarded(size_t bytes, void **map, size_t *size) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *size = (bytes + page - 1) / page * page + 2 * page;
    *map = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*map == MAP_FAILED) return NULL;
    uint8_t *const begin = (uint8_t *)*map + page, *const end = (uint8_t *)*map + *size - page;
    if (mprotect(*map, page, PROT_NONE) == 0 && mprotect(end, page, PROT_NONE) == 0)
        return tp_check_guarded == 1 ? end - bytes : begin;
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

void *tp_take(tp_buffers *h, size_t bytes) {
    void *map = NULL;
    size_t size = 0;
    void *p = h->count == 24     ? NULL
              : tp_check_guarded ? guarded(bytes, &map, &size)
                                 : malloc(bytes ? bytes : 1);
    if (!p) {
        h->failed = 1;
        return NULL;
    }
    memset(p, 0x55, bytes);
    h->maps[h->count] = map;
    h->sizes[h->count] = size;
    return h->all[h->count++] = p;
}

void tp_release(tp_buffers *h) {
    for (int i = 0; i < h->count; i++) {
        if (h->maps[i]) unmap(h->maps[i], h->sizes[i]);
        else free(h->all[i]);
    }
}

float *tp_random_floats(tp_buffers *h, int64_t n, uint64_t *state) {
    float *p = tp_take(h, (size_t)n * sizeof(float));
    for (int64_t i = 0; p && i < n; i++) p[i] = tp_random_float(state);
    return p;
}

int tp_differ(tp_buffers *h, const void *want, const void *got, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        h->digest = (h->digest ^ ((const uint8_t *)want)[i]) * UINT64_C(1099511628211);
    return memcmp(want, got, bytes) != 0;
}

int tp_differ_floats(tp_buffers *h, float *want, float *got, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (want[i] != want[i]) want[i] = tp_bits_float(TP_NAN_BITS);
        if (got[i] != got[i]) got[i] = tp_bits_float(TP_NAN_BITS);
    }
    return tp_differ(h, want, got, (size_t)n * 4);
}

void tp_poison(float *x, int64_t n, int extreme, uint64_t *state) {
    static const uint32_t bits[] = {TP_NAN_BITS, TP_NAN_BITS | 0x80000000u, TP_INF_BITS};
    if (extreme >= TP_POISONED)
        x[tp_random(state) % (uint64_t)n] = tp_bits_float(bits[extreme - TP_POISONED]);
}

int tp_laundered(const float *got, int64_t n, int extreme) {
    int64_t nans = 0;
    for (int64_t i = 0; i < n; i++) nans += got[i] != got[i];
    return (extreme == TP_POISONED || extreme == TP_POISONED + 1) && nans != n;
}
