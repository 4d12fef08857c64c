/* Checks every kernel of this CPU against scalar, in buffers of exact size, under sanitizers and
 * between guard pages; and exp, sin and cos against libm. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/csrc/angles.h"
#include "runtime/csrc/kernels/common.h"
#include "runtime/csrc/selftest/selftest.h"
#include "tests/c/check.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1 /* clang; gcc says __SANITIZE_ADDRESS__ */
#endif
#endif

static void check(const tp_kernel *k, int64_t rows, int64_t cols, int64_t n, int extreme) {
    uint64_t digest = 0;
    const tp_check_shape shape = {rows, cols, n, extreme};
    CHECK(tp_check_kernel(k, shape, (uint64_t)(rows * 131 + cols * 17 + n), &digest) == 0,
          "%s rows %d cols %d n %d extreme %d", k->symbol, (int)rows, (int)cols, (int)n, extreme);
}

static void test_kernel(const tp_kernel *k) {
    switch (k->op) {
        case TP_OP_MATVEC:
        case TP_OP_MATMUL:
            for (int64_t cols = 128; cols <= 1024; cols += 128) {
                for (int64_t n = 1; n <= 9; n++) check(k, 5, cols, n, 0);
                for (int64_t rows = 1; rows <= 39; rows += 2) check(k, rows, cols, 3, 0);
            }
            for (int64_t cols = 1; k->layout == TP_LAYOUT_T158 && cols <= 1000; cols += 7)
                check(k, 1 + cols % 19, cols, 1 + cols % 9, 0);
            /* So many activations that a tile takes its lines in pieces. */
            check(k, 13, 5120, 8, 0);
            check(k, 5, 6400, 7, 0);
            for (int64_t cols = 64;
                 k->op == TP_OP_MATVEC && tp_body_nbytes(k->layout, 4, 64) && cols <= 1024;
                 cols += 64)
                check(k, 1 + cols / 64 % 9, cols, 1, 0);
            for (int64_t n = 10; n <= 29; n++) check(k, 37, 384, n, 0);
            for (int extreme = 1; extreme <= 3; extreme++) {
                check(k, 3, 32768, 3, extreme);
                check(k, 2, 53248, 2, extreme);
                /* Lanes of matmul gain no more per column than those of matvec. */
                if (k->op == TP_OP_MATMUL) continue;
                check(k, 1, 327680 + 256, 1, extreme);
                if (k->isa != TP_ISA_SCALAR) check(k, 1, TP_MAX_COLS, 1, extreme);
            }
            break;
        case TP_OP_UNPACK:
        case TP_OP_PACK:
            for (int64_t cols = 1; cols <= 100; cols++) check(k, 1 + cols % 19, cols, 1, 0);
            for (int64_t cols = 128; cols <= 1024; cols += 32)
                check(k, 1 + cols / 32 % 9, cols, 1, 0);
            for (int64_t rows = 1; rows <= 64; rows++) check(k, rows, 400, 1, 0);
            break;
        case TP_OP_MATVEC_F32:
            for (int64_t cols = 16; cols <= 640; cols += 16)
                check(k, 1 + cols / 16 % 11, cols, cols / 16, 0);
            for (int extreme = 4; extreme <= 6; extreme++) check(k, 7, 256, 2, extreme);
            break;
        case TP_OP_LM_HEAD:
            for (int64_t cols = 1; cols <= 80; cols++) check(k, 5, cols, 3, 0);
            for (int64_t cols = 96; cols <= 1024; cols += 32) check(k, 7, cols, 5, 0);
            for (int64_t n = 1; n <= 9; n++) check(k, 9, 544, n, (int)(n % 3));
            for (int extreme = 4; extreme <= 6; extreme++)
                for (int64_t cols = 1; cols <= 801; cols += 32)
                    check(k, 5, cols, 1 + cols % 6, extreme);
            break;
        case TP_OP_ATTENTION:
        case TP_OP_ATTENTION16:
            for (int64_t dim = 2; dim <= 272; dim += dim < 40 ? 2 : 24)
                check(k, 21, dim, 1 + dim % 5, 0);
            for (int64_t n_pos = 1; n_pos <= 70; n_pos++)
                check(k, n_pos, 128, 1 + n_pos % 7, (int)(n_pos % 2));
            for (int64_t n_pos = 1; n_pos <= 40; n_pos++)
                check(k, n_pos, 72, 1, 4 + (int)(n_pos % 3));
            break;
        case TP_OP_HADAMARD:
            for (int64_t cols = 2; cols <= 8192; cols += cols < 200 ? 2 : cols)
                for (int extreme = 0; extreme <= 6; extreme += 4) check(k, 1, cols, 1, extreme);
            check(k, 1, 3 * 1024, 1, 0);
            break;
        case TP_OP_CONV:
        case TP_OP_DELTA_RULE:
            for (int64_t cols = 1; cols <= 100; cols++) {
                check(k, cols % 7, cols, 1 + cols % 4, 0);
                for (int extreme = 4; extreme <= 6; extreme++) check(k, cols % 7, cols, 2, extreme);
            }
            check(k, 3, 128, 5, 0);
            break;
        default:
            for (int64_t cols = 1; cols <= 100; cols++)
                for (int extreme = 0; extreme <= 6; extreme++)
                    if (extreme != 3) check(k, 1, cols, 1, extreme);
            check(k, 1, 6912, 1, 0);
            check(k, 1, 6912, 1, 4);
    }
}

static void test_exp(void) {
    double worst = 0;
    for (double x = -87.3; x < 88.7; x += 0.00137) {
        const float f = (float)x;
        const double want = exp((double)f), error = fabs((double)tp_exp(f) - want) / want;
        worst = error > worst ? error : worst;
    }
    CHECK(worst < 1.3e-7, "relative error %g", worst);
    CHECK(tp_exp(0.0f) == 1.0f, " ");
    CHECK(tp_exp(-200.0f) == 0.0f && tp_exp(-INFINITY) == 0.0f, " ");
    CHECK(isinf(tp_exp(200.0f)) && isinf(tp_exp(INFINITY)) && isnan(tp_exp(NAN)), " ");
    CHECK(tp_exp(88.72283f) > 3.4e38f && !isinf(tp_exp(88.7228f)), " ");
}

static void test_cos_sin(void) {
    int off = 0, count = 0;
    uint64_t state = 7;
    for (int i = 0; i < 300000; i++) {
        const float x = (float)tp_random(&state) / (i % 2 ? 1e4f : 1e9f),
                    sign = i % 3 ? 1.0f : -1.0f;
        float c, s;
        tp_cos_sin(sign * x, &c, &s);
        const double want_c = cos((double)x), want_s = sin((double)x) * (double)sign;
        CHECK(fabs((double)c - want_c) < 6.1e-8 && fabs((double)s - want_s) < 6.1e-8,
              "x %g: %g %g, not %g %g", (double)x, (double)c, (double)s, want_c, want_s);
        off += c != (float)want_c || s != (float)want_s;
        count++;
    }
    CHECK(off <= count / 100000, "%d of %d not correctly rounded", off, count);
    float c, s;
    tp_cos_sin(NAN, &c, &s);
    CHECK(c == 1.0f && s == 0.0f, " ");
}

static void test_halves(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = tp_f16_float((uint16_t)h);
        const int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
        const double want =
            (h & 0x8000 ? -1.0 : 1.0) * (e ? ldexp(1024 + m, e - 25) : ldexp(m, -24));
        if (e == 31) {
            CHECK(m ? isnan(f) : isinf(f), "%x", h);
            continue;
        }
        CHECK((double)f == want, "%x", h);
        CHECK(tp_float_f16(f) == h, "%x", h);
        if ((h & 0x7fff) < 0x7bff) { /* halfway to the next value rounds to even */
            const float next = tp_f16_float((uint16_t)(h + 1)),
                        middle = (float)(((double)f + (double)next) / 2);
            CHECK(tp_float_f16(middle) == (h % 2 ? h + 1 : h), "%x", h);
            CHECK(tp_float_f16(nextafterf(middle, next)) == h + 1, "%x", h);
            CHECK(tp_float_f16(nextafterf(middle, f)) == h, "%x", h);
        }
    }
    CHECK(tp_float_f16(1e9f) == 0x7c00 && tp_float_f16(-1e9f) == 0xfc00 &&
              tp_float_f16(65519.0f) == 0x7bff,
          " ");
}

static void test_tables(void) {
    CHECK(tp_abi_version() == TP_ABI_VERSION, " ");
    for (int i = 0; i < tp_isa_count(); i++) CHECK(tp_isa_from_name(tp_isa_name(i)) == i, "%d", i);
    CHECK(tp_isa_from_name("mmx") == -1 && tp_isa_from_name(NULL) == -1 &&
              tp_isa_name(-1) == NULL && tp_isa_name(99) == NULL,
          " ");
    for (int i = 0; i < tp_kernel_count(); i++) {
        tp_kernel_desc d;
        char symbol[64];
        CHECK(tp_kernel_info(i, &d) == TP_OK, "%d", i);
        snprintf(symbol, sizeof symbol, "%s_%s_%s", d.op, d.layout, d.isa);
        CHECK(strcmp(symbol, d.symbol) == 0, "%s is not %s", d.symbol, symbol);
        CHECK(tp_kernel_best(tp_kernel_at(i)->op, tp_kernel_at(i)->layout, TP_ISA_SCALAR) != NULL,
              "%s has no scalar", symbol);
    }
    CHECK(tp_tensor_nbytes(TP_LAYOUT_I2_S, 3, 256) == 3 * 64 + 32, " ");
    CHECK(tp_tensor_nbytes(TP_LAYOUT_I2_S, 3, 200) == 0 &&
              tp_tensor_nbytes(TP_LAYOUT_Q8_0, 1, 48) == 0 && tp_tensor_nbytes(77, 1, 1) == 0,
          " ");
    CHECK(tp_tensor_nbytes(TP_LAYOUT_T158, 9, 6912) == 64 + 9 * (21 * 64 + 48) &&
              tp_tensor_nbytes(TP_LAYOUT_TL2, 32, 256) == 2048 + 32,
          " ");
    CHECK(tp_tensor_nbytes(TP_LAYOUT_TL1, 31, 256) == 0 &&
              tp_tensor_nbytes(TP_LAYOUT_TL2, 32, 248) == 0 &&
              tp_tensor_nbytes(TP_LAYOUT_IQ2_BN_R4, 6, 64) == 0,
          " ");
    CHECK(tp_tensor_nbytes(TP_LAYOUT_Q6_K, 2, 512) == 840 &&
              tp_tensor_nbytes(TP_LAYOUT_F32, INT64_MAX, 4) == 0,
          " ");
    for (int i = -1; i < 12; i++) CHECK(strlen(tp_status_text(i)) > 5, "%d", i);
}

/* Blocks of a conversion: what is refused, and pieces that need no place to write to. */
static void test_conversion(void) {
    static float x[5000];
    static uint16_t halves[5000];
    int survived = 7;
    for (int i = 0; i < 5000; i++) x[i] = (float)(i % 100);
    CHECK(tp_encode(TP_LAYOUT_F16, TP_LAYOUT_F32, 2, 2500, x, halves, &survived) == TP_OK, " ");
    CHECK(survived == 1 && halves[1] == 0x3c00 && halves[4999] == tp_float_f16(99.0f), " ");
    x[4999] = 65520.0f;
    CHECK(tp_encode(TP_LAYOUT_F16, TP_LAYOUT_F32, 1, 5000, x, NULL, &survived) == TP_ERR_OVERFLOW,
          " ");
    CHECK(tp_encode(TP_LAYOUT_BF16, TP_LAYOUT_F32, 1, 5000, x, NULL, &survived) == TP_OK, " ");
    CHECK(survived == 0, " ");
    x[0] = NAN;
    CHECK(tp_encode(TP_LAYOUT_F32, TP_LAYOUT_F32, 1, 5000, x, NULL, &survived) == TP_ERR_FINITE,
          " ");
    CHECK(tp_encode(TP_LAYOUT_I2_S, TP_LAYOUT_F32, 1, 128, x, halves, &survived) == TP_ERR_LAYOUT &&
              tp_encode(TP_LAYOUT_F16, TP_LAYOUT_Q8_0, 1, 32, x, halves, &survived) ==
                  TP_ERR_LAYOUT &&
              tp_encode(TP_LAYOUT_F16, 77, 1, 32, x, halves, &survived) == TP_ERR_LAYOUT,
          " ");
    CHECK(tp_encode(TP_LAYOUT_F16, TP_LAYOUT_F32, INT64_MAX, 4, x, halves, &survived) ==
              TP_ERR_SHAPE,
          " ");
    CHECK(tp_encode(TP_LAYOUT_F16, TP_LAYOUT_F32, 1, 4, (char *)x + 1, halves, &survived) ==
                  TP_ERR_ARGUMENT &&
              tp_encode(TP_LAYOUT_F16, TP_LAYOUT_F32, 1, 4, x, (char *)halves + 1, &survived) ==
                  TP_ERR_ARGUMENT &&
              tp_encode(TP_LAYOUT_F16, TP_LAYOUT_F32, 1, 4, x, halves, NULL) == TP_ERR_ARGUMENT &&
              tp_encode(TP_LAYOUT_F16, TP_LAYOUT_F32, 1, 4, NULL, halves, &survived) ==
                  TP_ERR_ARGUMENT,
          " ");
    double sums[2];
    CHECK(tp_abs_sums(TP_LAYOUT_F32, 2, 2499, x + 1, sums) == TP_OK, " ");
    CHECK(sums[0] == 25 * 4950, "%g", sums[0]);
    CHECK(tp_abs_sums(TP_LAYOUT_F32, 2, 2499, x, NULL) == TP_ERR_ARGUMENT &&
              tp_absmean_codes(TP_LAYOUT_F32, 0, 4, x, 1.0f, (int8_t *)halves) == TP_ERR_SHAPE,
          " ");
    CHECK(tp_checksum(x, 0, 3) == 0 &&
              tp_checksum(x, 20000, 3) ==
                  tp_checksum(x, 8000, 3) + tp_checksum(x + 2000, 12000, 1003),
          " ");
}

static void test_kernels(void) {
    for (int i = 0; i < tp_kernel_count(); i++) {
        const tp_kernel *k = tp_kernel_at(i);
        if (!tp_isa_available(k->isa))
            printf("skipped %s: %s is not on this CPU\n", k->symbol, tp_isa_name(k->isa));
        else if (k->isa != TP_ISA_SCALAR || k->op == TP_OP_UNPACK || k->op == TP_OP_PACK)
            test_kernel(k);
        else {
            check(k, 9, k->op == TP_OP_ATTENTION ? 64 : 512, 3, 0);
            check(k, 3, k->op == TP_OP_ATTENTION ? 64 : 1024, 2, 1);
            for (int extreme = 4; extreme <= 6; extreme++)
                check(k, 3, k->op == TP_OP_ATTENTION ? 64 : 1024, 2, extreme);
        }
    }
}

int main(void) {
    test_tables();
    test_halves();
    test_exp();
    test_cos_sin();
    test_conversion();
#if defined(__SANITIZE_ADDRESS__) || SANITIZED || !TP_GUARD_PAGES
    test_kernels(); /* in memory that the sanitizer watches, or where nothing can */
#else
    printf("skipped the pass under AddressSanitizer: not built with it\n");
#endif
    for (tp_check_guarded = 1; TP_GUARD_PAGES && tp_check_guarded <= 2; tp_check_guarded++)
        test_kernels();
    tp_check_guarded = 0;
    char report[8192];
    CHECK(tp_self_test(report, sizeof report) == 0, "\n%s", report);
    CHECK(tp_self_test(NULL, 0) == 0, " ");
    printf("%s: %d failures\n", __FILE__, failures);
    return failures != 0;
}
