/* A random two-layer model gives the same bits on every instruction set, thread count and batch
 * size. Errors leave the session usable. With an argument it is quicker. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/c/session_model.h"

/* 1: for an emulator, each number of threads and each size of batch, but not each pair of them. */
static int quick;

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
                if (quick && !r.brief && threads != 1 + (int)b % 3) continue;
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
                const int64_t back = tp_sequence_rewindable(tp_session_sequence(s), 10);
                CHECK(r.hybrid || back == 10, " ");
                CHECK(tp_rewind(s, back) == TP_OK, " ");
                CHECK(tp_eval(s, tokens + back, 1, TP_LOGITS_NONE, NULL) == TP_OK, " ");
                CHECK(tp_eval(s, tokens + back + 1, TOKENS - back - 1, TP_LOGITS_LAST, last) ==
                          TP_OK,
                      " ");
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

/* Pieces of any size give the bits of the whole, and what was begun can be left. */
static void test_pieces(void) {
    fixture *f = make(PLAIN);
    tp_model *m = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_OK, " ");
    tp_session *s = session(m, TP_ISA_BEST, 2, 8, TP_KV_F32);
    int32_t tokens[9], left = -1;
    float want[8 * VOCAB], got[8 * VOCAB];
    for (int i = 0; i < 9; i++) tokens[i] = (7 * i + 1) % VOCAB;
    CHECK(tp_eval(s, tokens, 3, TP_LOGITS_NONE, NULL) == TP_OK, " ");
    CHECK(tp_eval(s, tokens + 3, 5, TP_LOGITS_ALL, want) == TP_OK && tp_rewind(s, 3) == TP_OK, " ");
    CHECK(tp_eval_layers(s, 1, got, &left) == TP_ERR_ARGUMENT, "nothing was begun");
    for (int layers = 1; layers <= LAYERS + 1; layers++) {
        memset(got, 0x55, sizeof got);
        CHECK(tp_eval_begin(s, tokens + 3, 5, TP_LOGITS_ALL) == TP_OK, " ");
        for (left = LAYERS; left > 0;) {
            CHECK(tp_n_past(s) == 3, "%d", left);
            const int before = left;
            CHECK(tp_eval_layers(s, layers, got, &left) == TP_OK, " ");
            CHECK(left == (before > layers ? before - layers : 0), "%d", left);
        }
        CHECK(tp_n_past(s) == 8 && memcmp(want, got, sizeof(float) * 5 * VOCAB) == 0, "%d", layers);
        CHECK(tp_eval_layers(s, 1, got, &left) == TP_ERR_ARGUMENT, "it has ended");
        CHECK(tp_rewind(s, 3) == TP_OK, " ");
    }
    CHECK(tp_eval_begin(s, tokens + 3, 4, TP_LOGITS_NONE) == TP_OK &&
              tp_eval_layers(s, LAYERS, NULL, &left) == TP_OK && tp_n_past(s) == 7,
          " ");
    CHECK(tp_eval(s, tokens + 7, 1, TP_LOGITS_LAST, got) == TP_OK && tp_rewind(s, 3) == TP_OK &&
              memcmp(want + 4 * VOCAB, got, sizeof(float) * VOCAB) == 0,
          " ");
    CHECK(tp_eval_begin(s, tokens, 4, TP_LOGITS_LAST) == TP_OK, " ");
    CHECK(tp_eval_layers(s, 1, NULL, &left) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_eval_layers(s, 0, got, &left) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_eval_layers(s, 1, got, NULL) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_eval_layers(s, 1, got, &left) == TP_OK && left == LAYERS - 1, " ");
    CHECK(tp_eval(s, tokens + 3, 5, TP_LOGITS_ALL, got) == TP_OK && tp_n_past(s) == 8 &&
              memcmp(want, got, sizeof(float) * 5 * VOCAB) == 0,
          "what was begun is dropped");
    CHECK(tp_eval_layers(s, 1, got, &left) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_eval_begin(s, tokens, 1, TP_LOGITS_LAST) == TP_OK && tp_rewind(s, 2) == TP_OK, " ");
    CHECK(tp_eval_layers(s, 1, got, &left) == TP_ERR_ARGUMENT, "its place has changed");
    CHECK(tp_eval_begin(s, tokens, 9, TP_LOGITS_LAST) == TP_ERR_ARGUMENT, "more than a batch");
    CHECK(tp_eval_begin(s, tokens, 0, TP_LOGITS_LAST) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_eval_begin(s, tokens, 1, 3) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_eval_begin(NULL, tokens, 1, 1) == TP_ERR_ARGUMENT, " ");
    tokens[0] = VOCAB;
    CHECK(tp_eval_begin(s, tokens, 1, TP_LOGITS_LAST) == TP_ERR_TOKEN, " ");
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
    tp_hparams odd = f->hp; /* what only recurrent layers read */
    odd.key_heads = odd.value_heads = odd.state_size = odd.conv_taps = INT32_MAX;
    tp_model *other = NULL;
    CHECK(tp_model_new(&odd, f->layers, &f->embd, &f->norm, NULL, &other) == TP_OK, " ");
    tp_session *of_other = session(other, TP_ISA_BEST, 2, 8, TP_KV_F32);
    CHECK(tp_eval(of_other, tokens, 3, TP_LOGITS_LAST, again) == TP_OK &&
              memcmp(logits, again, sizeof logits) == 0,
          " ");
    tp_session_free(of_other);
    tp_model_free(other);
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
    const tp_session_params long_one = {.n_ctx = 1 << 24, .threads = 1}; /* 16 GB */
    CHECK(sizeof(size_t) > 4 || tp_session_new(m, &long_one, &s) == TP_ERR_MEMORY, " ");
    CHECK(tp_alloc(UINT64_C(1) << 33, UINT64_C(1) << 31) == NULL, " ");
    CHECK(sizeof(size_t) > 4 || tp_alloc(UINT64_C(1) << 32, 1) == NULL, " ");
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

/* How far a recurrence goes back, while tokens come in few and in many. */
static void test_going_back(void) {
    fixture *f = make(HYBRID(SIGNED));
    tp_model *m = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, &f->head, &m) == TP_OK, " ");
    tp_session *s = session(m, TP_ISA_BEST, 2, 64, TP_KV_F32);
    tp_sequence *const q = tp_session_sequence(s);
    int32_t tokens[CONTEXT];
    for (int i = 0; i < CONTEXT; i++) tokens[i] = (int32_t)(tp_random(&f->state) % VOCAB);
    CHECK(tp_eval(s, tokens, 40, TP_LOGITS_NONE, NULL) == TP_OK, " ");
    CHECK(tp_sequence_rewindable(q, 39) == 39 && tp_sequence_rewindable(q, 24) == 24 &&
              tp_sequence_rewindable(q, 23) == 0,
          " ");
    for (int n = 41; n <= CONTEXT; n++) {
        CHECK(tp_eval(s, tokens + n - 1, 1, TP_LOGITS_NONE, NULL) == TP_OK, " ");
        CHECK(tp_sequence_rewindable(q, n - 16) == n - 16 && tp_sequence_rewindable(q, 24) == 24 &&
                  tp_sequence_rewindable(q, 40) == 40,
              "at %d", n);
    }
    CHECK(tp_sequence_rewindable(q, 65) == 0 && tp_sequence_rewindable(q, -1) == 0, " ");
    CHECK(tp_rewind(s, 20) == TP_ERR_ARGUMENT && tp_n_past(s) == CONTEXT, " ");
    CHECK(tp_rewind(s, 30) == TP_OK && tp_sequence_rewindable(q, 29) == 29, " ");
    float want[VOCAB], got[VOCAB];
    CHECK(tp_eval(s, tokens + 30, 3, TP_LOGITS_LAST, got) == TP_OK, " ");
    CHECK(tp_rewind(s, 0) == TP_OK && tp_eval(s, tokens, 33, TP_LOGITS_LAST, want) == TP_OK, " ");
    CHECK(memcmp(want, got, sizeof want) == 0, " ");
    tp_session_free(s);
    tp_model_free(m);
    drop(f);
}

static void test_hybrid_errors(void) {
    fixture *f = make(HYBRID(SIGNED));
    tp_model *m = NULL;
#define REFUSED(status, where) \
    do { \
        CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, &f->head, &m) == (status), " "); \
        CHECK(!m && strcmp(tp_error_place(), where) == 0, "%s", tp_error_place()); \
    } while (0)
    f->hp.sign_widths[3] = 0; /* nobody has signs for what enters ffn_down */
    REFUSED(TP_ERR_ARGUMENT, "layer 0 ffn_down");
    f->hp.sign_widths[3] = f->hp.ffn;
    f->signs[5] = 0.5f;
    REFUSED(TP_ERR_ARGUMENT, "rotation");
    f->signs[5] = 1;
    f->hp.rotation_block = 48;
    REFUSED(TP_ERR_ARGUMENT, "rotation");
    f->hp.rotation_block = 128; /* not of 192 values */
    REFUSED(TP_ERR_ARGUMENT, "layer 0 ssm_out");
    f->hp.rotation_block = BLOCK;
    f->layers[0].ssm_alpha.rotated = 1;
    REFUSED(TP_ERR_ARGUMENT, "layer 0 ssm_alpha");
    f->layers[0].ssm_alpha.rotated = 0;
    f->layers[1].ssm_norm = f->layers[0].ssm_norm;
    REFUSED(TP_ERR_ARGUMENT, "layer 1 ssm_norm");
    f->layers[1].ssm_norm.data = NULL;
    f->hp.value_heads = 5;
    REFUSED(TP_ERR_ARGUMENT, "recurrence");
    f->hp.value_heads = VALUE_HEADS;
    f->hp.int8_activations = 1;
    REFUSED(TP_ERR_ARGUMENT, "int8_activations");
#undef REFUSED
    drop(f);
}

int main(int argc, char **argv) {
    (void)argv;
    quick = argc > 1;
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
    for (int kind = UNROTATED; kind <= UNSIGNED; kind++)
        for (int rich = 0; rich < 2; rich++) {
            recipe r = HYBRID((hybrid)kind);
            r.rich = rich;
            r.brief = rich || kind != SIGNED;
            test_same_bits(r, kind % 2 ? TP_KV_F32 : TP_KV_I16);
        }
    test_hybrid_errors();
    test_going_back();
    test_cache_types();
    test_wanted();
    test_pieces();
    test_errors();
    printf("%s: %d failures\n", __FILE__, failures);
    return failures != 0;
}
