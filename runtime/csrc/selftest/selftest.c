/* The self-test of the library: every kernel of this CPU against scalar, and scalar against a known
 * answer. */
#include <stdio.h>
#include <string.h>

#include "../fpenv.h"
#include "checks.h"

int tp_check_kernel(const tp_kernel *k, tp_check_shape shape, uint64_t seed, uint64_t *digest) {
    const tp_kernel *scalar = tp_kernel_best(k->op, k->layout, TP_ISA_SCALAR);
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    tp_buffers h = {.digest = *digest};
    int result;
    switch (k->op) {
        case TP_OP_MATVEC:
        case TP_OP_MATMUL: result = tp_check_linear(k, scalar, shape, &state, &h); break;
        case TP_OP_UNPACK:
        case TP_OP_PACK: result = tp_check_packers(k, shape, &state, &h); break;
        case TP_OP_MATVEC_F32: result = tp_check_floatvec(k, scalar, shape, &state, &h); break;
        case TP_OP_DEQUANTIZE: result = tp_check_decode(k, scalar, shape, &state, &h); break;
        case TP_OP_LM_HEAD: result = tp_check_head(k, scalar, shape, &state, &h); break;
        case TP_OP_ATTENTION:
        case TP_OP_ATTENTION16: result = tp_check_attention(k, scalar, shape, &state, &h); break;
        case TP_OP_CACHE16: result = tp_check_cache16(k, scalar, shape, &state, &h); break;
        case TP_OP_HADAMARD: result = tp_check_hadamard(k, scalar, shape, &state, &h); break;
        case TP_OP_CONV: result = tp_check_conv(k, scalar, shape, &state, &h); break;
        case TP_OP_DELTA_RULE: result = tp_check_delta_rule(k, scalar, shape, &state, &h); break;
        case TP_OP_WIDEN:
        case TP_OP_ENCODE:
        case TP_OP_ABS_SUM:
        case TP_OP_ABSMEAN:
        case TP_OP_CHECKSUM: result = tp_check_convert(k, scalar, shape, &state, &h); break;
        default: result = tp_check_elementwise(k, scalar, shape, &state, &h); break;
    }
    tp_release(&h);
    *digest = h.digest;
    return result;
}

/* The digest of what the scalar kernels gave on this data (without the poisoned rows) when they
 * were checked against numpy. It is the same on every machine. */
#define KNOWN_ANSWER UINT64_C(0x18b297790adb5982)

static TP_NOINLINE int self_test(char *report, size_t size) {
    static const tp_check_shape shapes[] = {{7, 128, 1, 0},  {33, 384, 5, 0}, {50, 640, 13, 0},
                                            {3, 2560, 2, 1}, {3, 8192, 3, 2}, {5, 1280, 4, 3},
                                            {9, 640, 2, 4},  {9, 640, 5, 5},  {9, 640, 2, 6}};
    size_t used = 0;
    int failures = 0;
    uint64_t scalar = UINT64_C(14695981039346656037), ignored = 0;
    if (report && size) report[0] = 0;
    for (int i = 0; i <= tp_kernel_count(); i++) {
        const tp_kernel *k =
            tp_kernel_at(i); /* the known answer is the line after the last kernel */
        const char *verdict = "good";
        if (!k) verdict = scalar == KNOWN_ANSWER ? "good" : "WRONG";
        else if (!tp_cpu_has(k->isa)) verdict = "not on this CPU";
        else
            for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
                uint64_t *digest =
                    k->isa == TP_ISA_SCALAR && shapes[j].extreme < TP_POISONED ? &scalar : &ignored;
                const int wrong =
                    tp_check_kernel(k, shapes[j], 100 * (uint64_t)k->op + j + 1, digest);
                if (wrong < 0) return -1;
                if (wrong) verdict = "WRONG";
            }
        failures += strcmp(verdict, "WRONG") == 0;
        if (report && used < size) {
            const size_t room = size - used;
            const size_t wrote =
                k ? (size_t)snprintf(report + used, room, "%s: %s\n", k->symbol, verdict)
                  : (size_t)snprintf(report + used, room, "known answer of scalar: %s (%016llx)\n",
                                     verdict, (unsigned long long)scalar);
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
