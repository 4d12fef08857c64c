/* A random two-layer model gives the same bits on every instruction set, thread count and batch
 * size. Errors leave the session usable. */
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
#include "runtime/csrc/selftest/selftest.h"
#include "tests/c/check.h"

enum {
    VOCAB = 67,
    HIDDEN = 256,
    FFN = 384,
    LAYERS = 2,
    HEADS = 4,
    KV_HEADS = 2,
    HEAD_DIM = 32,
    CONTEXT = 64,
    TOKENS = 29,
    MAX_PARTS = 128
};

typedef struct fixture {
    tp_hparams hp;
    tp_layer layers[LAYERS];
    tp_tensor embd, norm, head;
    float inv_freq[HEAD_DIM / 2];
    void *parts[MAX_PARTS]; /* exact-size heap */
    int count;
    uint64_t state;
} fixture;

/* Makes a tensor in this layout, or in I2_S if the layout cannot hold the shape. */
static tp_tensor tensor(fixture *f, int layout, int64_t rows, int64_t cols) {
    tp_tensor t = tp_test_tensor(layout, rows, cols);
    if (!t.nbytes) t = tp_test_tensor(TP_LAYOUT_I2_S, rows, cols);
    uint8_t *data = malloc(t.nbytes);
    CHECK(data && tp_random_tensor(&t, data, &f->state) == 0, "out of memory");
    f->parts[f->count++] = data;
    t.data = data;
    return t;
}

/* The parts of a model in which families differ. A negative head is tied. rich: every optional
 * norm, sliding layers, multipliers, interleaved RoPE pairs. brief: fewer thread counts and
 * batches. */
typedef struct recipe {
    int embd, head, activation, sub_norms, linear, floats, rich, hidden, ffn, brief;
} recipe;

#define PLAIN \
    ((recipe){.embd = TP_LAYOUT_F16, \
              .head = -1, \
              .activation = TP_ACT_RELU2, \
              .sub_norms = 1, \
              .linear = TP_LAYOUT_I2_S})

static void add_rich_parts(fixture *f) {
    const tp_hparams *hp = &f->hp;
    f->hp.rope_interleaved = 1;
    f->hp.window = 7;
    f->hp.inv_freq_sliding = f->inv_freq;
    f->hp.embedding_scale = 3.5f, f->hp.residual_scale = 0.7f, f->hp.logit_scale = 0.3f,
    f->hp.rope_factor = 1.1f;
    for (int i = 0; i < LAYERS; i++) {
        tp_layer *l = &f->layers[i];
        l->slides = i % 2;
        l->attn_q_norm = tensor(f, TP_LAYOUT_F32, 1, HEAD_DIM);
        l->attn_k_norm = tensor(f, TP_LAYOUT_F32, 1, HEAD_DIM);
        l->post_attention_norm = tensor(f, TP_LAYOUT_F32, 1, hp->hidden);
        l->post_ffw_norm = tensor(f, TP_LAYOUT_F32, 1, hp->hidden);
        tp_tensor *const own[] = {&l->attn_q_norm_in, &l->attn_k_norm_in, &l->attn_v_norm_in,
                                  &l->ffn_gate_norm_in, &l->ffn_up_norm_in};
        for (size_t j = 0; j < sizeof own / sizeof *own; j++)
            *own[j] = tensor(f, TP_LAYOUT_F32, 1, hp->hidden);
        l->attn_output_norm_in = tensor(f, TP_LAYOUT_F32, 1, HEADS * HEAD_DIM);
        l->ffn_down_norm_in = tensor(f, TP_LAYOUT_F32, 1, hp->ffn);
    }
}

static fixture *make(recipe r) {
    fixture *f = calloc(1, sizeof *f);
    const int hidden = r.hidden ? r.hidden : HIDDEN, ffn = r.ffn ? r.ffn : FFN;
    f->state = 42;
    for (int i = 0; i < HEAD_DIM / 2; i++)
        f->inv_freq[i] = powf(10000.0f, -2.0f * (float)i / HEAD_DIM);
    f->hp = (tp_hparams){.vocab_size = VOCAB,
                         .hidden = hidden,
                         .ffn = ffn,
                         .layers = LAYERS,
                         .heads = HEADS,
                         .kv_heads = KV_HEADS,
                         .head_dim = HEAD_DIM,
                         .context_length = CONTEXT,
                         .norm_eps = 1e-5f,
                         .projection_norm_eps = 1e-6f,
                         .activation = r.activation,
                         .int8_activations = !r.floats,
                         .embedding_scale = 1,
                         .residual_scale = 1,
                         .logit_scale = 1,
                         .attention_scale = 1.0f / sqrtf(HEAD_DIM),
                         .rope_factor = 1,
                         .inv_freq = f->inv_freq};
    for (int i = 0; i < LAYERS; i++) {
        tp_layer *l = &f->layers[i];
        l->attn_norm = tensor(f, TP_LAYOUT_F32, 1, hidden);
        l->attn_q = tensor(f, r.linear, HEADS * HEAD_DIM, hidden);
        l->attn_k = tensor(f, r.linear, KV_HEADS * HEAD_DIM, hidden);
        l->attn_v = tensor(f, r.linear, KV_HEADS * HEAD_DIM, hidden);
        if (r.sub_norms) l->attn_sub_norm = tensor(f, TP_LAYOUT_F32, 1, HEADS * HEAD_DIM);
        l->attn_output = tensor(f, r.linear, hidden, HEADS * HEAD_DIM);
        l->ffn_norm = tensor(f, TP_LAYOUT_F32, 1, hidden);
        l->ffn_gate = tensor(f, r.linear, ffn, hidden);
        l->ffn_up = tensor(f, r.linear, ffn, hidden);
        if (r.sub_norms) l->ffn_sub_norm = tensor(f, TP_LAYOUT_F32, 1, ffn);
        l->ffn_down = tensor(f, r.linear, hidden, ffn);
    }
    f->embd = tensor(f, r.embd, VOCAB, hidden);
    f->norm = tensor(f, TP_LAYOUT_F32, 1, hidden);
    if (r.head >= 0) f->head = tensor(f, r.head, VOCAB, hidden);
    if (r.rich) add_rich_parts(f);
    return f;
}

static void drop(fixture *f) {
    for (int i = 0; i < f->count; i++) free(f->parts[i]);
    free(f);
}

static tp_session *session(const tp_model *m, int isa, int threads, int batch, int kv_type) {
    const tp_session_params p = {
        .n_ctx = CONTEXT, .threads = threads, .isa = isa, .kv_type = kv_type, .batch = batch};
    tp_session *s = NULL;
    const int status = tp_session_new(m, &p, &s);
    CHECK(status == TP_OK, "%s", tp_status_text(status));
    return s;
}

static int ran(const tp_session *s, tp_kernel_plan plan) {
    const char *symbols[64];
    const int count = tp_session_kernels(s, symbols, 64);
    int matches = 0;
    for (int i = 0; i < count && i < 64; i++)
        matches += strcmp(symbols[i], plan.kernel->symbol) == 0 ||
                   (plan.unpack && strcmp(symbols[i], plan.unpack->symbol) == 0);
    return matches == 1 + (plan.unpack != NULL);
}

static void test_same_bits(recipe r, int kv_type) {
    fixture *f = make(r);
    tp_model *m = NULL;
    int status =
        tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, r.head < 0 ? NULL : &f->head, &m);
    CHECK(status == TP_OK, "%s: %s", tp_error_place(), tp_status_text(status));
    static const int batches[] = {1, 2, 5, 13, 64};
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = (int32_t)(tp_random(&f->state) % VOCAB);
    float *want = malloc(sizeof(float) * TOKENS * VOCAB),
          *got = malloc(sizeof(float) * TOKENS * VOCAB), *last = malloc(sizeof(float) * VOCAB);
    int first = 1;
    for (int isa = 0; isa < tp_isa_count(); isa++) {
        if (!tp_isa_available(isa)) {
            printf("skipped sessions on %s: not on this CPU\n", tp_isa_name(isa));
            continue;
        }
        for (int threads = 1; threads <= 3; threads++)
            for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
                if (r.brief && (threads != 2 || batches[b] != 5))
                    continue; /* batches of 5 go by matmul, the 4 at the end by matvec */
                tp_session *s = session(m, isa, threads, batches[b], kv_type);
                if (!s) continue;
                memset(got, 0x55, sizeof(float) * TOKENS * VOCAB);
                CHECK(tp_eval(s, tokens, TOKENS, TP_LOGITS_ALL, got) == TP_OK, " ");
                CHECK(tp_n_past(s) == TOKENS, " ");
                if (first) {
                    memcpy(want, got, sizeof(float) * TOKENS * VOCAB);
                    for (int j = 0; j < TOKENS * VOCAB; j++) CHECK(isfinite(want[j]), "%d", j);
                    first = 0;
                }
                CHECK(memcmp(want, got, sizeof(float) * TOKENS * VOCAB) == 0,
                      "isa %s threads %d batch %d embd %d head %d", tp_isa_name(isa), threads,
                      batches[b], r.embd, r.head);
                /* goes back and evaluates the rest again, in other pieces and with only the last
                 * logits */
                CHECK(tp_rewind(s, 10) == TP_OK, " ");
                CHECK(tp_eval(s, tokens + 10, 1, TP_LOGITS_NONE, NULL) == TP_OK, " ");
                CHECK(tp_eval(s, tokens + 11, TOKENS - 11, TP_LOGITS_LAST, last) == TP_OK, " ");
                CHECK(memcmp(want + (TOKENS - 1) * VOCAB, last, sizeof(float) * VOCAB) == 0, " ");
                const tp_op op = r.floats ? TP_OP_DEQUANTIZE : TP_OP_MATVEC;
                const tp_kernel_plan plan = tp_kernel_plan_for(op, r.linear, isa);
                CHECK(ran(s, plan) ||
                          (r.floats && ran(s, tp_kernel_plan_for(TP_OP_MATVEC_F32, r.linear, isa))),
                      "%s did not run", plan.kernel->symbol);
                tp_session_free(s);
            }
    }
    free(want);
    free(got);
    free(last);
    tp_model_free(m);
    drop(f);
}

/* What a trace of three tokens showed. */
typedef struct traced {
    int points, q8, layers_out, bad;
} traced;

static void on_trace(void *user, const char *point, int layer, int dtype, int64_t rows,
                     int64_t cols, const void *data) {
    traced *t = user;
    t->points++;
    t->q8 += dtype == TP_DTYPE_INT8;
    t->layers_out += strcmp(point, "layer_out") == 0;
    t->bad += (strstr(point, ".q8") != NULL) != (dtype == TP_DTYPE_INT8) ||
              rows != (strcmp(point, "final_norm") == 0 ? 1 : 3) || cols < 1 || !data ||
              layer >= LAYERS;
}

/* After its cache is filled the last layer works only on the wanted tokens: one of twenty goes
 * by matvec. */
static void test_wanted(void) {
    fixture *f = make(PLAIN);
    tp_model *m = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_OK, " ");
    tp_session *s = session(m, TP_ISA_BEST, 2, 32, TP_KV_F32);
    const tp_kernel_plan matvec = tp_kernel_plan_for(TP_OP_MATVEC, TP_LAYOUT_I2_S, tp_best_isa());
    int32_t tokens[20] = {0};
    float logits[VOCAB];
    CHECK(tp_eval(s, tokens, 20, TP_LOGITS_NONE, NULL) == TP_OK && tp_n_past(s) == 20 &&
              !ran(s, matvec),
          " ");
    CHECK(tp_eval(s, tokens, 20, TP_LOGITS_LAST, logits) == TP_OK && tp_n_past(s) == 40 &&
              ran(s, matvec),
          " ");
    tp_session_free(s);
    tp_model_free(m);
    drop(f);
}

static void test_errors(void) {
    fixture *f = make(PLAIN);
    tp_model *m = NULL;
    tp_tensor nothing = {0};
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, &nothing, &m) == TP_OK, " ");
    tp_session *s = session(m, TP_ISA_BEST, 2, 8, TP_KV_F32);
    int32_t tokens[CONTEXT + 1];
    float logits[VOCAB], again[VOCAB];
    for (int i = 0; i <= CONTEXT; i++) tokens[i] = i % VOCAB;
    CHECK(tp_eval(s, tokens, 3, TP_LOGITS_LAST, logits) == TP_OK, " ");
    tokens[5] = VOCAB;
    CHECK(tp_eval(s, tokens + 3, 5, TP_LOGITS_LAST, again) == TP_ERR_TOKEN && tp_n_past(s) == 3,
          " ");
    tokens[5] = -1;
    CHECK(tp_eval(s, tokens + 3, 5, TP_LOGITS_LAST, again) == TP_ERR_TOKEN, " ");
    tokens[5] = 5;
    CHECK(tp_eval(s, tokens, CONTEXT - 2, TP_LOGITS_LAST, again) == TP_ERR_CONTEXT &&
              tp_n_past(s) == 3,
          " ");
    CHECK(tp_eval(s, tokens, 0, TP_LOGITS_NONE, NULL) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_eval(s, tokens, 1, 7, again) == TP_ERR_ARGUMENT &&
              tp_eval(s, tokens, 1, TP_LOGITS_LAST, NULL) == TP_ERR_ARGUMENT,
          " ");
    CHECK(tp_rewind(s, 4) == TP_ERR_ARGUMENT && tp_rewind(s, -1) == TP_ERR_ARGUMENT &&
              tp_rewind(s, 0) == TP_OK,
          " ");
    traced t = {0, 0, 0, 0};
    tp_set_trace(s, on_trace, &t);
    CHECK(tp_eval(s, tokens, 3, TP_LOGITS_LAST, again) == TP_OK &&
              memcmp(logits, again, sizeof logits) == 0,
          " ");
    CHECK(t.points == 2 + 25 * LAYERS && t.q8 == 4 * LAYERS && t.layers_out == LAYERS && t.bad == 0,
          "%d %d %d %d", t.points, t.q8, t.layers_out, t.bad);
    tp_set_trace(s, NULL, NULL);
    CHECK(tp_eval(s, tokens, CONTEXT - 3, TP_LOGITS_NONE, NULL) == TP_OK && tp_n_past(s) == CONTEXT,
          " ");
    CHECK(tp_eval(s, tokens, 1, TP_LOGITS_NONE, NULL) == TP_ERR_CONTEXT, " ");
    float *hidden = malloc(sizeof(float) * 20 * HIDDEN);
    CHECK(tp_rewind(s, 0) == TP_OK && tp_eval_hidden(s, tokens, 20, hidden) == TP_OK, " ");
    CHECK(tp_rewind(s, 19) == TP_OK && tp_eval(s, tokens + 19, 1, TP_LOGITS_LAST, logits) == TP_OK,
          " ");
    CHECK(tp_head_matmul(TP_ISA_SCALAR, &f->embd, hidden + 19 * HIDDEN, 1, again) == TP_OK &&
              memcmp(logits, again, sizeof logits) == 0,
          " ");
    free(hidden);
    tp_session_free(s);

    const tp_session_params none = {.isa = TP_ISA_NEON}, many = {.threads = 100000},
                            unknown = {.isa = 55};
    CHECK(tp_isa_available(TP_ISA_NEON) || tp_session_new(m, &none, &s) == TP_ERR_ISA, " ");
    CHECK(tp_session_new(m, &many, &s) == TP_ERR_ARGUMENT &&
              tp_session_new(m, &unknown, &s) == TP_ERR_ISA,
          " ");
    tp_model_free(m);

    f->layers[1].ffn_down.rows--;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_ERR_SHAPE &&
              strcmp(tp_error_place(), "layer 1 ffn_down") == 0,
          "%s", tp_error_place());
    f->layers[1].ffn_down.rows++;
    f->layers[1].ffn_down.nbytes--;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_ERR_BYTES, " ");
    f->layers[1].ffn_down.nbytes++;
    f->layers[0].attn_q.layout = TP_LAYOUT_F16;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_ERR_LAYOUT, " ");
    f->layers[0].attn_q.layout = TP_LAYOUT_I2_S;
    f->layers[0].ffn_norm.data = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_ERR_ARGUMENT, " ");
    f->hp.kv_heads = 3;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_ERR_ARGUMENT &&
              strcmp(tp_error_place(), "kv_heads") == 0,
          " ");
    CHECK(m == NULL, " ");
    drop(f);
}

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

/* Activations stay floats, since rounding them would make a step of the smallest difference.
 * Windows begin anywhere in a block. */
static void test_cache_types(void) {
    for (int rich = 0; rich < 2; rich++) {
        fixture *f = make((recipe){.embd = TP_LAYOUT_F16,
                                   .head = -1,
                                   .linear = TP_LAYOUT_I2_S,
                                   .floats = 1,
                                   .rich = rich});
        tp_model *m = NULL;
        CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_OK, " ");
        int32_t tokens[CONTEXT];
        float logits[2][VOCAB], most = 0, worst = 0;
        for (int i = 0; i < CONTEXT; i++) tokens[i] = (int32_t)(tp_random(&f->state) % VOCAB);
        for (int type = 0; type < 2; type++) {
            tp_session *s = session(m, TP_ISA_BEST, 2, 8, type ? TP_KV_I16 : TP_KV_F32);
            CHECK(tp_eval(s, tokens, CONTEXT, TP_LOGITS_LAST, logits[type]) == TP_OK, " ");
            tp_session_free(s);
        }
        for (int i = 0; i < VOCAB; i++) {
            most = fmaxf(most, fabsf(logits[0][i]));
            worst = fmaxf(worst, fabsf(logits[0][i] - logits[1][i]));
        }
        CHECK(worst > 0 && worst < 2e-4f * most, "rich %d: %g of %g", rich, (double)worst,
              (double)most);
        tp_model_free(m);
        drop(f);
    }
}

int main(void) {
    static const int types[] = {TP_LAYOUT_F32, TP_LAYOUT_F16, TP_LAYOUT_BF16, TP_LAYOUT_Q8_0,
                                TP_LAYOUT_Q6_K};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        test_same_bits((recipe){.embd = types[i],
                                .head = -1,
                                .activation = (int)i % 2,
                                .sub_norms = i % 2,
                                .linear = TP_LAYOUT_I2_S},
                       i % 2 ? TP_KV_I16 : TP_KV_F32);
    test_same_bits((recipe){.embd = TP_LAYOUT_F16,
                            .head = TP_LAYOUT_Q6_K,
                            .sub_norms = 1,
                            .linear = TP_LAYOUT_I2_S},
                   TP_KV_F32);
    /* Rows that are not whole blocks, ternary tables, float activations, and every optional part
     * of the graph. */
    for (int floats = 0; floats < 2; floats++)
        for (int rich = 0; rich < 2; rich++)
            test_same_bits((recipe){.embd = TP_LAYOUT_T2,
                                    .head = rich ? TP_LAYOUT_T2 : -1,
                                    .activation = TP_ACT_GELU_TANH,
                                    .sub_norms = !rich,
                                    .linear = TP_LAYOUT_T2,
                                    .floats = floats,
                                    .rich = rich,
                                    .hidden = 200,
                                    .ffn = 328},
                           floats ? TP_KV_I16 : TP_KV_F32);
    /* Every layout. Where it cannot hold 384 columns, or a table of 67 rows, I2_S takes its
     * place. */
    for (int layout = TP_LAYOUT_T158; layout < TP_LAYOUT_HF_U8; layout++)
        for (int floats = 0; floats < 2; floats++)
            test_same_bits((recipe){.embd = layout,
                                    .head = -1,
                                    .activation = TP_ACT_SILU,
                                    .linear = layout,
                                    .floats = floats,
                                    .brief = 1},
                           TP_KV_F32);
    test_cache_types();
    test_wanted();
    test_errors();
    static const int heads[] = {TP_LAYOUT_F16, TP_LAYOUT_Q8_0, TP_LAYOUT_Q6_K};
    for (int i = 0; i < 3 * 10 * 2; i++)
        test_nan(heads[i % 3], i / 6, i / 3 % 2, i % 2 ? TP_KV_I16 : TP_KV_F32);
#if !defined(__wasm__)
    test_fork();
#endif
    test_fp_environment();
    printf("%s: %d failures\n", __FILE__, failures);
    return failures != 0;
}
