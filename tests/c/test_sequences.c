/* Sequences in one batch get the bits that each gets alone, in random mixes of lengths, wanted
 * logits, copies, rewinds, and states that are saved and loaded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/c/session_model.h"

enum { SEQUENCES = 5, STEPS = 25 };

typedef struct script {
    int32_t tokens[CONTEXT];
    float logits[CONTEXT * VOCAB]; /* of each token, evaluated alone */
} script;

static uint64_t below(fixture *f, uint64_t n) { return tp_random(&f->state) % n; }

/* A sequence, and the script that it follows. */
typedef struct follower {
    tp_sequence *sequence;
    int64_t n_ctx;
    int script;
} follower;

/* Gives some sequences, in any order, some of their next tokens. Compares what comes out. */
static void step_together(fixture *f, tp_session *s, follower *all, const script *scripts) {
    tp_span spans[SEQUENCES];
    int which[SEQUENCES];
    int64_t count = 0, wanted = 0;
    const int turn = (int)below(f, SEQUENCES);
    for (int i = 0; i < SEQUENCES; i++) {
        const int at = (i + turn) % SEQUENCES;
        const int64_t past = tp_sequence_n_past(all[at].sequence), room = all[at].n_ctx - past;
        if (room == 0 || below(f, 4) == 0) continue;
        const int64_t most = below(f, 3) ? 3 : room, n = 1 + (int64_t)below(f, (uint64_t)most);
        if (n > room) continue;
        which[count] = at;
        spans[count] = (tp_span){.sequence = all[at].sequence,
                                 .tokens = scripts[all[at].script].tokens + past,
                                 .n = n,
                                 .wanted = (int64_t)below(f, (uint64_t)n + 1)};
        wanted += spans[count++].wanted;
    }
    if (count == 0) return;
    float *logits = malloc(sizeof(float) * (size_t)(wanted ? wanted * VOCAB : 1));
    CHECK(tp_eval_spans(s, spans, count, wanted ? logits : NULL) == TP_OK, " ");
    const float *got = logits;
    for (int64_t i = 0; i < count; i++) {
        const follower *q = &all[which[i]];
        const int64_t past = tp_sequence_n_past(q->sequence), first = past - spans[i].wanted;
        const size_t size = sizeof(float) * (size_t)(spans[i].wanted * VOCAB);
        CHECK(past >= spans[i].n, " ");
        CHECK(memcmp(got, scripts[q->script].logits + first * VOCAB, size) == 0,
              "sequence %d at %d", which[i], (int)first);
        got += spans[i].wanted * VOCAB;
    }
    free(logits);
}

/* Forgets, copies, or saves and loads. */
static void change_one(fixture *f, follower *all) {
    follower *q = &all[below(f, SEQUENCES)], *other = &all[below(f, SEQUENCES)];
    const int64_t past = tp_sequence_n_past(q->sequence);
    const int64_t any = (int64_t)below(f, (uint64_t)past + 1),
                  n = tp_sequence_rewindable(q->sequence, any);
    CHECK(n <= any && (f->hp.key_heads || n == any), " ");
    CHECK(n == any || tp_sequence_rewind(q->sequence, any) == TP_ERR_ARGUMENT, " ");
    switch (below(f, 3)) {
        case 0: CHECK(tp_sequence_rewind(q->sequence, n) == TP_OK, " "); break;
        case 1:
            if (n > other->n_ctx) break;
            CHECK(tp_sequence_copy(other->sequence, q->sequence, n) == TP_OK, " ");
            CHECK(tp_sequence_n_past(other->sequence) == n, " ");
            other->script = q->script;
            break;
        default: {
            if (past > other->n_ctx) break;
            const uint64_t nbytes = tp_sequence_state_bytes(q->sequence, past);
            uint8_t *state = malloc(nbytes ? nbytes : 1);
            CHECK(tp_sequence_save(q->sequence, state, nbytes) == TP_OK, " ");
            CHECK(tp_sequence_load(other->sequence, past, state, nbytes) == TP_OK, " ");
            other->script = q->script;
            free(state);
        }
    }
}

static void test_mixes(recipe r, int kv_type) {
    fixture *f = make(r);
    tp_model *m = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_OK, " ");
    script *scripts = calloc(SEQUENCES, sizeof *scripts);
    for (int i = 0; i < SEQUENCES; i++) {
        for (int t = 0; t < CONTEXT; t++) scripts[i].tokens[t] = (int32_t)below(f, VOCAB);
        tp_session *alone = session(m, TP_ISA_SCALAR, 1, 16, kv_type);
        CHECK(tp_eval(alone, scripts[i].tokens, CONTEXT, TP_LOGITS_ALL, scripts[i].logits) == TP_OK,
              " ");
        tp_session_free(alone);
    }
    static const int batches[] = {1, 4, 64};
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        tp_session *s = session(m, TP_ISA_BEST, 1 + (int)b, batches[b], kv_type);
        follower all[SEQUENCES];
        for (int i = 0; i < SEQUENCES; i++) {
            all[i] = (follower){.n_ctx = i % 2 ? CONTEXT : CONTEXT - 3 * i, .script = i};
            if (i == 0) all[i].sequence = tp_session_sequence(s);
            else CHECK(tp_sequence_new(s, all[i].n_ctx, &all[i].sequence) == TP_OK, " ");
        }
        for (int i = 0; i < STEPS; i++) {
            step_together(f, s, all, scripts);
            if (below(f, 3) == 0) change_one(f, all);
        }
        for (int i = 0; i < SEQUENCES; i++) tp_sequence_free(all[i].sequence);
        tp_session_free(s);
    }
    free(scripts);
    tp_model_free(m);
    drop(f);
}

/* What one instruction set saves, every other one continues. */
static void test_states_move(recipe r, int kv_type) {
    fixture *f = make(r);
    tp_model *m = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_OK, " ");
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = (int32_t)below(f, VOCAB);
    tp_session *from = session(m, TP_ISA_SCALAR, 1, 64, kv_type);
    float want[VOCAB], got[VOCAB];
    CHECK(tp_eval(from, tokens, TOKENS - 1, TP_LOGITS_NONE, NULL) == TP_OK, " ");
    const uint64_t nbytes = tp_sequence_state_bytes(tp_session_sequence(from), TOKENS - 1);
    uint8_t *state = malloc(nbytes);
    CHECK(tp_sequence_save(tp_session_sequence(from), state, nbytes) == TP_OK, " ");
    CHECK(tp_eval(from, tokens + TOKENS - 1, 1, TP_LOGITS_LAST, want) == TP_OK, " ");
    for (int isa = 0; isa < tp_isa_count(); isa++) {
        if (!tp_isa_available(isa)) continue;
        tp_session *to = session(m, isa, 2, 8, kv_type);
        CHECK(tp_sequence_load(tp_session_sequence(to), TOKENS - 1, state, nbytes) == TP_OK, " ");
        CHECK(tp_eval(to, tokens + TOKENS - 1, 1, TP_LOGITS_LAST, got) == TP_OK, " ");
        CHECK(memcmp(want, got, sizeof want) == 0, "%s", tp_isa_name(isa));
        tp_session_free(to);
    }
    free(state);
    tp_session_free(from);
    tp_model_free(m);
    drop(f);
}

/* A call that fails leaves all sequences as they were. */
static void test_errors(void) {
    fixture *f = make(PLAIN);
    tp_model *m = NULL;
    CHECK(tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, NULL, &m) == TP_OK, " ");
    tp_session *s = session(m, TP_ISA_BEST, 1, 8, TP_KV_F32),
               *stranger = session(m, TP_ISA_BEST, 1, 8, TP_KV_F32);
    tp_sequence *a = tp_session_sequence(s), *b = NULL;
    CHECK(tp_sequence_new(s, CONTEXT + 1, &b) == TP_ERR_ARGUMENT && b == NULL, " ");
    CHECK(tp_sequence_new(s, 4, &b) == TP_OK, " ");
    const int32_t tokens[] = {1, 2, 3, 4, 5}, wrong[] = {1, VOCAB};
    float logits[5 * VOCAB];
    const struct {
        tp_span second;
        int status;
    } cases[] = {{{b, tokens, 5, 0}, TP_ERR_CONTEXT},
                 {{b, wrong, 2, 1}, TP_ERR_TOKEN},
                 {{b, tokens, 2, 3}, TP_ERR_ARGUMENT},
                 {{b, tokens, 0, 0}, TP_ERR_ARGUMENT},
                 {{b, NULL, 1, 0}, TP_ERR_ARGUMENT},
                 {{a, tokens, 1, 0}, TP_ERR_ARGUMENT},
                 {{NULL, tokens, 1, 0}, TP_ERR_ARGUMENT},
                 {{tp_session_sequence(stranger), tokens, 1, 0}, TP_ERR_ARGUMENT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const tp_span spans[] = {{a, tokens, 2, 1}, cases[i].second};
        CHECK(tp_eval_spans(s, spans, 2, logits) == cases[i].status, "case %d", (int)i);
        CHECK(tp_sequence_n_past(a) == 0 && tp_sequence_n_past(b) == 0, "case %d", (int)i);
    }
    const tp_span fine = {b, tokens, 3, 3};
    CHECK(tp_eval_spans(s, &fine, 1, NULL) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_eval_spans(s, &fine, 0, logits) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_eval_spans(s, &fine, 1, logits) == TP_OK && tp_sequence_n_past(b) == 3, " ");
    CHECK(tp_sequence_rewind(b, 4) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_sequence_copy(a, b, 4) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_sequence_copy(tp_session_sequence(stranger), b, 1) == TP_ERR_ARGUMENT, " ");
    CHECK(tp_sequence_copy(b, b, 2) == TP_OK && tp_sequence_n_past(b) == 2, " ");
    uint8_t byte = 0;
    CHECK(tp_sequence_save(b, &byte, 1) == TP_ERR_BYTES, " ");
    CHECK(tp_sequence_load(b, 3, &byte, 1) == TP_ERR_BYTES, " ");
    CHECK(tp_sequence_load(b, 5, &byte, 1) == TP_ERR_CONTEXT, " ");
    CHECK(tp_sequence_n_past(b) == 2, " ");
    tp_sequence_free(a); /* the session's own: nothing happens */
    tp_sequence_free(NULL);
    tp_sequence_free(b);
    CHECK(tp_eval(s, tokens, 2, TP_LOGITS_LAST, logits) == TP_OK, " ");
    tp_session_free(stranger);
    tp_session_free(s);
    tp_model_free(m);
    drop(f);
}

int main(void) {
    for (int kv_type = TP_KV_F32; kv_type <= TP_KV_I16; kv_type++) {
        test_mixes(PLAIN, kv_type);
        for (int floats = 0; floats < 2; floats++)
            test_mixes((recipe){.embd = TP_LAYOUT_T2,
                                .head = -1,
                                .activation = TP_ACT_SILU,
                                .linear = TP_LAYOUT_T2,
                                .floats = floats,
                                .rich = 1},
                       kv_type);
        test_states_move(PLAIN, kv_type);
        test_states_move(HYBRID(SIGNED), kv_type);
        for (int kind = UNROTATED; kind <= UNSIGNED; kind++)
            test_mixes(HYBRID((hybrid)kind), kv_type);
    }
    test_errors();
    printf("%s: %d failures\n", __FILE__, failures);
    return failures != 0;
}
