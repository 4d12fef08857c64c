/* A pool of threads that lives as long as its session. A job's items are cut into one contiguous
 * piece per thread, so that each thread reads the weights as one stream. A thread that has
 * finished takes chunks from the pieces of others.
 *
 * The caller never waits for a thread that has not woken up: it takes that thread's chunks
 * itself, closes the job, and waits only for the threads that are inside it (`inside`). So a
 * busy CPU slows the pool down by no more than its own part. Idle threads spin for about 50 us,
 * since the next job usually follows at once, and then sleep.
 *
 * fork() copies no threads. In a child, and on a machine without threads, the caller does a job
 * alone, and there is nothing to join.
 *
 * WebAssembly starts no threads itself. Where memory is shared, others make workers, each an
 * instance of this module with a stack of its own, which call tp_pool_work and stay there. A job
 * does not wait for them, so they may come at any time, or not at all. */
#include "internal.h"

static void run_alone(tp_task_fn *fn, void *ctx, int64_t items, int64_t chunk) {
    for (int64_t i = 0; i < items; i += chunk) fn(ctx, 0, i, i + chunk < items ? i + chunk : items);
}

#if defined(__wasm__) && !defined(__wasm_atomics__)
struct tp_pool {
    char nothing;
};

void tp_pool_run(tp_pool *pool, tp_task_fn *fn, void *ctx, int64_t items, int64_t chunk) {
    (void)pool;
    run_alone(fn, ctx, items, chunk);
}

int tp_pool_threads(const tp_pool *pool) {
    (void)pool;
    return 1;
}

void tp_pool_free(tp_pool *pool) { (void)pool; }

tp_pool *tp_pool_new(int threads, int *status) {
    static tp_pool caller;
    (void)threads;
    *status = TP_OK;
    return &caller;
}
#else
#include <stdatomic.h>

#include "fpenv.h"
#if !defined(__wasm__)
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>
#endif

enum { SPINS = 600, SPINS_WAIT = 2000 };

typedef struct piece {
    _Alignas(64) atomic_llong next;
    int64_t end;
} piece;

#if !defined(__wasm__)
typedef struct worker {
    tp_pool *pool;
    pthread_t thread;
    int index;
} worker;
#endif

struct tp_pool {
    piece *pieces; /* (threads) */
    tp_task_fn *fn;
    void *ctx;
    int64_t chunk;
    int threads;
    _Alignas(64) atomic_uint epoch; /* counts jobs */
    atomic_int open;                /* a job may be entered */
    atomic_int sleepers;
    _Alignas(64) atomic_int inside; /* workers looking at the job */
#if !defined(__wasm__)
    worker *workers;                /* (threads - 1) */
    int started;
    pid_t owner; /* the process that has the threads */
    atomic_int quit;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
#endif
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_chunks(tp_pool *pool, int thread) {
    for (int i = 0; i < pool->threads; i++) {
        piece *p = &pool->pieces[(thread + i) % pool->threads];
        while (atomic_load_explicit(&p->next, memory_order_relaxed) < p->end) {
            const int64_t begin = atomic_fetch_add(&p->next, pool->chunk);
            if (begin >= p->end) break;
            pool->fn(pool->ctx, thread, begin,
                     begin + pool->chunk < p->end ? begin + pool->chunk : p->end);
        }
    }
}

/* ---- sleeping and waking, by machine ---- */

#if defined(__wasm__)
static int can_share(const tp_pool *pool) { return pool->threads > 1; }

static void sleep_until_after(tp_pool *pool, unsigned seen) {
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->epoch) == seen)
        __builtin_wasm_memory_atomic_wait32((int *)&pool->epoch, (int)seen, -1);
    atomic_fetch_sub(&pool->sleepers, 1);
}

static void wake_all(tp_pool *pool) {
    __builtin_wasm_memory_atomic_notify((int *)&pool->epoch, TP_MAX_THREADS);
}

static void give_way(tp_pool *pool, int inside) { /* nobody notifies: 0.1 ms at most */
    __builtin_wasm_memory_atomic_wait32((int *)&pool->inside, inside, 100000);
}
#else
static int can_share(const tp_pool *pool) { return pool->threads > 1 && getpid() == pool->owner; }

static void sleep_until_after(tp_pool *pool, unsigned seen) {
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->epoch) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void wake_all(tp_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static void give_way(tp_pool *pool, int inside) {
    (void)pool;
    (void)inside;
    sched_yield();
}
#endif

/* ---- jobs ---- */

static void await_epoch(tp_pool *pool, unsigned seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&pool->epoch) != seen) return;
        relax();
    }
    sleep_until_after(pool, seen);
}

static void take_part(tp_pool *pool, int index) {
    atomic_fetch_add(&pool->inside, 1);
    /* If the job is closed, the caller has done this thread's piece. */
    if (atomic_load(&pool->open) && index < pool->threads) take_chunks(pool, index);
    atomic_fetch_sub(&pool->inside, 1);
}

static void announce(tp_pool *pool) {
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->sleepers) > 0) wake_all(pool);
}

void tp_pool_run(tp_pool *pool, tp_task_fn *fn, void *ctx, int64_t items, int64_t chunk) {
    if (items <= chunk || !can_share(pool)) {
        run_alone(fn, ctx, items, chunk);
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    pool->chunk = chunk;
    const int64_t chunks = (items + chunk - 1) / chunk;
    for (int i = 0; i < pool->threads; i++) {
        const int64_t begin = chunks * i / pool->threads * chunk,
                      end = chunks * (i + 1) / pool->threads * chunk;
        atomic_store_explicit(&pool->pieces[i].next, begin, memory_order_relaxed);
        pool->pieces[i].end = end < items ? end : items;
    }
    atomic_store(&pool->open, 1);
    announce(pool);
    take_chunks(pool, 0);
    atomic_store(&pool->open, 0);
    int inside;
    for (int i = 0; (inside = atomic_load(&pool->inside)) > 0; i++) {
        if (i < SPINS_WAIT) relax();
        else give_way(pool, inside);
    }
}

int tp_pool_threads(const tp_pool *pool) { return pool->threads; }

/* ---- the life of a pool ---- */

#if defined(__wasm__)
/* The pool whose workers wait for jobs. A second one at the same time works alone. */
static piece shared_pieces[TP_MAX_THREADS];
static tp_pool shared = {.pieces = shared_pieces}, alone = {.threads = 1};

/* What a worker calls, and never leaves. 1 <= index < threads of the session. */
TP_API void tp_pool_work(int index);
void tp_pool_work(int index) {
    for (unsigned seen = 0;;) {
        await_epoch(&shared, seen);
        seen = atomic_load(&shared.epoch);
        take_part(&shared, index);
    }
}

tp_pool *tp_pool_new(int threads, int *status) {
    *status = TP_OK;
    if (threads == 1 || shared.threads > 0) return &alone;
    shared.threads = threads;
    return &shared;
}

void tp_pool_free(tp_pool *pool) {
    if (pool == &shared) shared.threads = 0;
}
#else
static void *work(void *argument) {
    worker *w = argument;
    tp_pool *pool = w->pool;
    tp_fpenv_enter(); /* a thread starts with the environment of its maker */
    for (unsigned seen = 0;;) {
        await_epoch(pool, seen);
        seen = atomic_load(&pool->epoch);
        if (atomic_load(&pool->quit)) return NULL;
        take_part(pool, w->index);
    }
}

void tp_pool_free(tp_pool *pool) {
    if (!pool) return;
    if (getpid() == pool->owner) { /* in a child the mutex and the condition may be in any state */
        atomic_store(&pool->quit, 1);
        announce(pool);
        for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->mutex);
    }
    tp_free(pool->pieces);
    tp_free(pool->workers);
    tp_free(pool);
}

tp_pool *tp_pool_new(int threads, int *status) {
    tp_pool *pool = tp_alloc(1, sizeof *pool);
    *status = TP_ERR_MEMORY;
    if (!pool) return NULL;
    pool->threads = threads;
    pool->owner = getpid();
    pool->pieces = tp_alloc((size_t)threads, sizeof *pool->pieces);
    pool->workers = tp_alloc((size_t)threads, sizeof *pool->workers);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    if (!pool->pieces || !pool->workers) {
        tp_pool_free(pool);
        return NULL;
    }
    for (int i = 1; i < threads; i++) {
        worker *w = &pool->workers[i - 1];
        w->pool = pool;
        w->index = i;
        if (pthread_create(&w->thread, NULL, work, w)) {
            tp_pool_free(pool);
            *status = TP_ERR_THREADS;
            return NULL;
        }
        pool->started++;
    }
    *status = TP_OK;
    return pool;
}
#endif
#endif
