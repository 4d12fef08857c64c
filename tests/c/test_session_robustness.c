/* What must not change the bits of a session, or must show in all of them: NaN, a forked process,
 * the caller's rounding mode. */
#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__wasm__) /* it has one process and one rounding mode */
#define FE_UPWARD FE_TONEAREST
#define FE_DOWNWARD FE_TONEAREST
#define FE_TOWARDZERO FE_TONEAREST
#else
#include <sys/wait.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "runtime/csrc/kernels/common.h"
#include "tests/c/session_model.h"

static int nans(const float *x, int n) {
    int count = 0;
    for (int i = 0; i < n; i++) count += isnan(x[i]) != 0;
    return count;
}

/* With a NaN of either sign in the embedding of token 3, its logits and all later ones are NaN
 * on every ISA, and earlier ones keep their bits. With a NaN in a scale or a norm, all logits
 * are NaN. */
static void test_nan(int head_layout, int place, int sign, int kv_type) {
    enum { POISON = 3, N = 8 };
    fixture *f = make((recipe){.embd = TP_LAYOUT_F32,
                               .head = head_layout,
                               .activation = place % 2,
                               .sub_norms = place % 2,
                               .linear = TP_LAYOUT_I2_S});
    const float nan = tp_bits_float(TP_NAN_BITS | (sign ? 0x80000000u : 0));
    tp_layer *l = &f->layers[1];
    tp_tensor *const scaled[] = {&l->attn_q,   &l->attn_v, &l->attn_output,
                                 &l->ffn_gate, &l->ffn_up, &l->ffn_down};
    tp_tensor *const norms[] = {&l->attn_norm, &l->ffn_norm, &f->norm};
    tp_tensor *const t = place < 6 ? scaled[place] : place < 9 ? norms[place - 6] : &f->embd;
    const size_t at = place < 6   ? (size_t)(t->rows * t->cols / 4)
                      : place < 9 ? 4 * 17
                                  : (POISON * HIDDEN + 40) * 4;
    tp_model *m = NULL;
    memcpy((uint8_t *)(uintptr_t)t->data + at, &nan, 4);
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, &f->head, &m) == TP_OK, " ");
    int32_t tokens[N];
    for (int i = 0; i < N; i++) tokens[i] = i;
    float want[N * VOCAB], got[N * VOCAB];
    for (int isa = 0, first = 1; isa < tp_isa_count(); isa++) {
        if (!tp_isa_available(isa)) continue;
        for (int batch = 1; batch <= N; batch += 7, first = 0) {
            tp_session *s = session(m, isa, 2, batch, kv_type);
            CHECK(tp_eval(s, tokens, N, TP_LOGITS_ALL, got) == TP_OK, " ");
            if (first) memcpy(want, got, sizeof want);
            const int clean = place < 9 ? 0 : POISON;
            CHECK(nans(got, clean * VOCAB) == 0 &&
                      memcmp(want, got, sizeof(float) * (size_t)clean * VOCAB) == 0,
                  "isa %d place %d", isa, place);
            CHECK(nans(got + clean * VOCAB, VOCAB) == VOCAB,
                  "isa %d batch %d head %d place %d sign %d: %d", isa, batch, head_layout, place,
                  sign, nans(got + clean * VOCAB, VOCAB));
            if (place < 9) CHECK(nans(got, N * VOCAB) == N * VOCAB, "isa %d place %d", isa, place);
            tp_session_free(s);
        }
    }
    tp_model_free(m);
    drop(f);
}

#if !defined(__wasm__)
/* In a forked child a session still gives its bits and can be freed, also if its threads sleep. */
static void test_fork(void) {
    fixture *f = make(PLAIN);
    tp_model *m = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_OK, " ");
    tp_session *s = session(m, TP_ISA_BEST, 3, 0, TP_KV_F32);
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = i;
    float want[VOCAB], got[VOCAB];
    for (int i = 0; i < 12; i++) {
        tp_rewind(s, 0);
        CHECK(tp_eval(s, tokens, TOKENS, TP_LOGITS_LAST, want) == TP_OK, " ");
        /* A thread that is still starting holds locks of the sanitizers' run-time, which a child
         * would never get. */
        if (i == 0) usleep(200000);
        if (i % 2) usleep(3000);
        const pid_t child = fork();
        if (child == 0) {
            alarm(30);
            int bad = 0;
            if (i % 4 < 2) {
                tp_rewind(s, 0);
                bad = tp_eval(s, tokens, TOKENS, TP_LOGITS_LAST, got) != TP_OK ||
                      memcmp(want, got, sizeof want) != 0;
            }
            tp_session_free(s);
#if defined(__SANITIZE_ADDRESS__)
            const tp_session_params p = {
                .threads = 1}; /* under sanitizers a child may not start threads */
#else
            const tp_session_params p = {.threads = 2};
#endif
            bad |= tp_session_new(m, &p, &s) != TP_OK ||
                   tp_eval(s, tokens, TOKENS, TP_LOGITS_LAST, got) != TP_OK ||
                   memcmp(want, got, sizeof want) != 0;
            tp_session_free(s);
            _exit(bad);
        }
        int status = -1;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
                  WEXITSTATUS(status) == 0,
              "child %d: %x", i, (unsigned)status);
    }
    tp_session_free(s);
    tp_model_free(m);
    drop(f);
}
#endif

/* The caller's rounding mode and flushing of subnormals change no bit and are restored. */
static void test_fp_environment(void) {
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    fixture *f = make((recipe){.embd = TP_LAYOUT_F32,
                               .head = TP_LAYOUT_Q8_0,
                               .activation = TP_ACT_SILU,
                               .sub_norms = 1,
                               .linear = TP_LAYOUT_I2_S});
    tp_model *m = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, &f->head, &m) == TP_OK, " ");
    for (int i = 0; i < HIDDEN; i++) ((float *)(uintptr_t)f->embd.data)[i] *= 1e-38f;
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = i;
    float want[VOCAB], got[VOCAB], hidden[2][HIDDEN], s[2], row[2][HIDDEN];
    int8_t q[2][HIDDEN];
    int32_t sum[2];
    for (int i = 0; i < 8; i++) {
        const int isa = i % 2 ? TP_ISA_BEST : TP_ISA_SCALAR;
        fesetround(modes[i % 4]);
#if defined(__x86_64__)
        if (i >= 4) _mm_setcsr(_mm_getcsr() | 0x8040);
        const unsigned before = _mm_getcsr();
#endif
        tp_session *session_here = session(m, isa, 1 + i % 3, 0, TP_KV_F32);
        CHECK(tp_eval(session_here, tokens, TOKENS, TP_LOGITS_LAST, got) == TP_OK, " ");
        CHECK(tp_rewind(session_here, 0) == TP_OK &&
                  tp_eval_hidden(session_here, tokens, 1, hidden[i > 0]) == TP_OK,
              " ");
        CHECK(tp_quantize_activations(isa, hidden[0], 1, HIDDEN, q[i > 0], &s[i > 0],
                                      &sum[i > 0]) == TP_OK,
              " ");
        CHECK(tp_tensor_row(&f->head, 1, row[i > 0]) == TP_OK, " ");
        CHECK(tp_self_test(NULL, 0) == 0, " ");
        const int round_after = fegetround();
#if defined(__x86_64__)
        CHECK(_mm_getcsr() == before, "%x", _mm_getcsr());
        _mm_setcsr(0x1f80);
#endif
        fesetround(FE_TONEAREST);
        CHECK(round_after == modes[i % 4], "%d", round_after);
        tp_session_free(session_here);
        if (i == 0) memcpy(want, got, sizeof want);
        else {
            CHECK(memcmp(want, got, sizeof want) == 0 &&
                      memcmp(hidden[0], hidden[1], sizeof hidden[0]) == 0,
                  "%d", i);
            CHECK(memcmp(q[0], q[1], HIDDEN) == 0 && memcmp(&s[0], &s[1], 4) == 0 &&
                      sum[0] == sum[1] && memcmp(row[0], row[1], sizeof row[0]) == 0,
                  "%d", i);
        }
    }
    tp_model_free(m);
    drop(f);
}

/* T158 with `scales` scales of 1, and all weights -1. */
static tp_tensor minus_ones(int64_t rows, int64_t cols, uint32_t scales) {
    const uint64_t header = tp_round64(32 + 4 * scales),
                   nbytes = header + tp_body_nbytes(TP_LAYOUT_T158, rows, cols);
    uint8_t *data = tp_alloc(nbytes, 1);
    const uint32_t blocks[] = {scales, 1};
    const float one = 1;
    memcpy(data, "T158", 4);
    memcpy(data + 4, blocks, sizeof blocks);
    for (uint32_t i = 0; i < scales; i++) memcpy(data + 32 + 4 * i, &one, 4);
    return (tp_tensor){.data = data,
                       .rows = rows,
                       .cols = cols,
                       .nbytes = nbytes,
                       .layout = TP_LAYOUT_T158,
                       .scale = 1};
}

/* A gate and an up that differ in the bytes of their scales alone are multiplied at once by a few
 * tokens, though each by itself would be cut into pieces of another size. */
static void test_gate_and_up_of_other_sizes(void) {
    enum { ROWS = 4096, COLS = 1472, N = 4 };
    const int isa = tp_best_isa();
    const tp_kernel_plan plan = tp_kernel_plan_for(TP_OP_MATVEC, TP_LAYOUT_T158, isa);
    const tp_tensor one = minus_ones(ROWS, COLS, 1), each = minus_ones(ROWS, COLS, ROWS);
    const size_t scratch = tp_linear_scratch(plan, ROWS, COLS, N);
    int status = 0;
    CHECK(tp_tensor_check(&one) == TP_OK && tp_tensor_check(&each) == TP_OK, " ");
    tp_pool *pool = tp_pool_new(1, &status);
    tp_acts8 acts = {
        .q = tp_alloc(N, tp_padded_cols(COLS)),
        .s = tp_alloc(N, 4),
        .sum = tp_alloc(N, 4),
        .ordered = tp_alloc(
            plan.kernel->activation_order->bytes(plan.kernel->activation_order, N, COLS), 1)};
    for (int t = 0; t < N; t++) {
        acts.q[t * tp_padded_cols(COLS)] = (int8_t)(t - 2);
        acts.s[t] = 1;
        acts.sum[t] = t - 2;
    }
    float *y[] = {tp_alloc(N * ROWS, 4), tp_alloc(N * ROWS, 4)};
    uint8_t *work = tp_alloc(scratch, 1);
    for (int i = 0; i < 2; i++) {
        tp_linear_job jobs[] = {{.w = i ? &each : &one,
                                 .plan = plan,
                                 .y = y[i],
                                 .glu = tp_kernel_best(TP_OP_GLU, TP_LAYOUT_F32, isa)},
                                {.w = &each, .plan = plan}};
        tp_linears_run(pool, tp_kernel_best(TP_OP_RESCALE, TP_LAYOUT_F32, isa), jobs, 2, &acts, N,
                       work, scratch);
    }
    CHECK(memcmp(y[0], y[1], N * ROWS * sizeof(float)) == 0, " ");
    tp_pool_free(pool);
    void *parts[] = {(void *)one.data,
                     (void *)each.data,
                     acts.q,
                     acts.s,
                     acts.sum,
                     acts.ordered,
                     y[0],
                     y[1],
                     work};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) tp_free(parts[i]);
}

int main(void) {
    static const int heads[] = {TP_LAYOUT_F16, TP_LAYOUT_Q8_0, TP_LAYOUT_Q6_K};
    for (int i = 0; i < 3 * 10 * 2; i++)
        test_nan(heads[i % 3], i / 6, i / 3 % 2, i % 2 ? TP_KV_I16 : TP_KV_F32);
#if !defined(__wasm__)
    test_fork();
#endif
    test_fp_environment();
    test_gate_and_up_of_other_sizes();
    printf("%s: %d failures\n", __FILE__, failures);
    return failures != 0;
}
