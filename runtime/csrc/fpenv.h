/* The floating-point environment of the calling thread. Results are promised bit by bit for
 * rounding to nearest with subnormal numbers, but the caller may have set something else (the
 * start-up code of some libraries does). A function that computes enters the environment at its
 * beginning and leaves it at its end. What it calls in between must not be inlined, so that no
 * operation moves out. */
#ifndef TRITPACK_FPENV_H
#define TRITPACK_FPENV_H

#include <stdint.h>

#define TP_NOINLINE __attribute__((noinline))

#if defined(__x86_64__)
#include <xmmintrin.h>
typedef unsigned tp_fpenv;
/* Sets rounding to nearest, no FTZ, no DAZ, every exception masked. Returns what was set before,
 * for tp_fpenv_leave. */
static inline tp_fpenv tp_fpenv_enter(void) {
    const tp_fpenv old = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return old;
}
static inline void tp_fpenv_leave(tp_fpenv old) { _mm_setcsr(old); }
#elif defined(__aarch64__)
typedef uint64_t tp_fpenv;
static inline void tp_fpenv_leave(tp_fpenv old) {
    __asm__ volatile("msr fpcr, %0" : : "r"(old) : "memory");
}
static inline tp_fpenv tp_fpenv_enter(void) {
    tp_fpenv old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old) : : "memory");
    tp_fpenv_leave(0);
    return old;
}
#else
#include <fenv.h>
typedef fenv_t tp_fpenv;
static inline tp_fpenv tp_fpenv_enter(void) {
    tp_fpenv old;
    fegetenv(&old);
    fesetenv(FE_DFL_ENV);
    return old;
}
static inline void tp_fpenv_leave(tp_fpenv old) { fesetenv(&old); }
#endif

#endif
