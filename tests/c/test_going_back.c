/* How far a recurrence goes back: as far as tritpack.h promises, whatever batches a call is cut
 * into, and to the bits of a run without it. */
#include <stdlib.h>
#include <string.h>

#include "tests/c/session_model.h"

enum { POSITIONS = 300, CALLS = 150, BACK = 16, KEPT = 32 };

typedef struct text {
    int32_t tokens[POSITIONS];
    float logits[POSITIONS * VOCAB]; /* of each token, evaluated in one call */
    uint8_t reach[CALLS][POSITIONS]; /* after each call of the first walk: where it can go back */
} text;

/* A sequence, and the promise to it. */
typedef struct walk {
    tp_session *session;
    tp_sequence *sequence, *other;
    int64_t past, since;    /* tokens; the position to which it went back last */
    int64_t prompt, before; /* ends of the last prompt, and of the one before it; or -1 */
    uint64_t luck;
} walk;

static int64_t below(walk *w, int64_t n) { return (int64_t)(tp_random(&w->luck) % (uint64_t)n); }

static int within(int64_t p, int64_t end, int64_t n) {
    return end >= 0 && p <= end && end - p <= n;
}

/* Appends n tokens, of which `wanted` give logits. */
static void call(walk *w, const text *t, int64_t n, int64_t wanted) {
    static float logits[POSITIONS * VOCAB];
    const tp_span span = {w->sequence, t->tokens + w->past, n, wanted};
    CHECK(tp_eval_spans(w->session, &span, 1, logits) == TP_OK, " ");
    w->past += n;
    CHECK(memcmp(logits, t->logits + (w->past - wanted) * VOCAB,
                 sizeof(float) * (size_t)(wanted * VOCAB)) == 0,
          "%d tokens to %d", (int)n, (int)w->past);
    const int is_prompt = n >= BACK && !(n <= KEPT && wanted == n);
    w->before = is_prompt ? w->prompt : -1;
    if (is_prompt) w->prompt = w->past;
    for (int64_t p = 0; p < w->past; p++) {
        const int promised = (p >= w->since && w->past - p <= BACK) ||
                             (n <= KEPT && w->past - p <= n) || within(p, w->prompt, BACK) ||
                             within(p, w->before, BACK);
        CHECK(!promised || tp_sequence_rewindable(w->sequence, p) == p, "%d of %d", (int)p,
              (int)w->past);
    }
}

/* What follows a position, in a sequence that becomes its copy. */
static void look_from(walk *w, const text *t, int64_t p) {
    float logits[VOCAB];
    const tp_span span = {w->other, t->tokens + p, 1, 1};
    CHECK(tp_sequence_copy(w->other, w->sequence, p) == TP_OK, " ");
    CHECK(tp_eval_spans(w->session, &span, 1, logits) == TP_OK, " ");
    CHECK(memcmp(logits, t->logits + p * VOCAB, sizeof logits) == 0, "from %d", (int)p);
}

static void go_back(walk *w, int64_t p) {
    const int64_t to = tp_sequence_rewindable(w->sequence, p);
    uint8_t could[POSITIONS];
    for (int64_t i = 0; i < to; i++) could[i] = tp_sequence_rewindable(w->sequence, i) == i;
    CHECK(to <= p && (to == p || tp_sequence_rewind(w->sequence, p) == TP_ERR_ARGUMENT), " ");
    CHECK(tp_sequence_rewind(w->sequence, to) == TP_OK, " ");
    for (int64_t i = 0; i < to; i++)
        CHECK(could[i] == (tp_sequence_rewindable(w->sequence, i) == i), "%d of %d", (int)i,
              (int)to);
    w->past = w->since = to;
    w->prompt = w->before = -1;
}

/* The same calls for each size of batch: answers of single tokens and of guesses, and prompts. */
static void take_walk(const tp_model *m, text *t, int batch, int first) {
    static const int64_t lengths[] = {1, 1, 1, 1, 2, 8, 15, 16, 17, 20, 31, 32, 33, 40, 70};
    const tp_session_params params = {.n_ctx = POSITIONS, .isa = TP_ISA_BEST, .batch = batch};
    walk w = {.prompt = -1, .before = -1, .luck = 7};
    CHECK(tp_session_new(m, &params, &w.session) == TP_OK, " ");
    CHECK(tp_sequence_new(w.session, 0, &w.other) == TP_OK, " ");
    w.sequence = tp_session_sequence(w.session);
    for (int i = 0; i < CALLS; i++) {
        const int64_t n = lengths[below(&w, sizeof lengths / sizeof *lengths)];
        if (below(&w, 6) == 0 || w.past + n >= POSITIONS) go_back(&w, below(&w, w.past + 1));
        if (w.past + n >= POSITIONS) go_back(&w, 0);
        call(&w, t, n, below(&w, 3) ? n < 9 ? n : 1 : below(&w, 2) ? n : 0);
        for (int64_t p = 0; p < w.past; p++) {
            const uint8_t reach = tp_sequence_rewindable(w.sequence, p) == p;
            if (first) t->reach[i][p] = reach;
            CHECK(t->reach[i][p] == reach, "batch %d, call %d: %d of %d", batch, i, (int)p,
                  (int)w.past);
        }
        look_from(&w, t, tp_sequence_rewindable(w.sequence, below(&w, w.past + 1)));
    }
    tp_sequence_free(w.other);
    tp_session_free(w.session);
}

int main(void) {
    recipe r = HYBRID(SIGNED);
    r.hidden = 64, r.ffn = 256;
    fixture *f = make(r);
    tp_model *m = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, &f->head, &m) == TP_OK, " ");
    text *t = calloc(1, sizeof *t);
    for (int i = 0; i < POSITIONS; i++) t->tokens[i] = (int32_t)(tp_random(&f->state) % VOCAB);
    const tp_session_params params = {.n_ctx = POSITIONS, .isa = TP_ISA_SCALAR};
    tp_session *s = NULL;
    CHECK(tp_session_new(m, &params, &s) == TP_OK, " ");
    CHECK(tp_eval(s, t->tokens, POSITIONS, TP_LOGITS_ALL, t->logits) == TP_OK, " ");
    tp_session_free(s);
    static const int batches[] = {0, 1, 5, 33};
    for (int i = 0; i < 4; i++) take_walk(m, t, batches[i], i == 0);
    free(t);
    tp_model_free(m);
    drop(f);
    printf("%s: %d failures\n", __FILE__, failures);
    return failures != 0;
}
