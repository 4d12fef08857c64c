/* What a sequence keeps of its recurrent layers. A recurrence cannot be undone, so beside the
 * states after the last token there are two checkpoints, states of an earlier position with the
 * inputs of up to TP_KEPT tokens after it, from which tp_delta_net_replay makes every state
 * between:
 *
 *   recent   lies BACK to TP_KEPT tokens back. Few tokens are appended to it; when it is full, it
 *            is brought forward. A span of BACK or more makes it anew: at its first token, or BACK
 *            before its end if it is longer than TP_KEPT.
 *   prompt   what `recent` was at the end of a prompt, kept when later spans move it on.
 *
 * And position 0 is known. All this is decided once for a span, whatever batches it is cut into.
 * Per sequence it is three times tp_state_floats a layer, and 2 TP_KEPT times tp_input_floats; a
 * checkpoint takes no memory before it is made. */
#include <string.h>

#include "session.h"

enum { BACK = 16 };

static uint64_t states_floats(const tp_session *s) {
    return (uint64_t)(s->model->recurrent_layers * tp_state_floats(&s->model->hp));
}
static uint64_t inputs_floats(const tp_session *s) {
    return (uint64_t)(s->model->recurrent_layers * tp_input_floats(&s->model->hp) * TP_KEPT);
}

size_t tp_recurrence_bytes(const tp_sequence *q) { /* which it has in memory */
    return (size_t)states_floats(q->session) * sizeof(float);
}

void tp_recurrence_forget(tp_sequence *q) { q->recent.count = q->prompt.count = -1; }

int tp_recurrence_init(tp_sequence *q) {
    tp_recurrence_forget(q);
    if (!q->session->model->recurrent_layers) return TP_OK;
    q->states = tp_alloc(states_floats(q->session), sizeof(float));
    int fine = q->states != NULL;
    tp_checkpoint *const both[] = {&q->recent, &q->prompt};
    for (int i = 0; i < 2; i++) {
        both[i]->states = tp_alloc(states_floats(q->session), sizeof(float));
        both[i]->inputs = tp_alloc(inputs_floats(q->session), sizeof(float));
        fine = fine && both[i]->states && both[i]->inputs;
    }
    return fine ? TP_OK : TP_ERR_MEMORY;
}

void tp_recurrence_drop(tp_sequence *q) {
    tp_free(q->states);
    tp_free(q->recent.states);
    tp_free(q->recent.inputs);
    tp_free(q->prompt.states);
    tp_free(q->prompt.inputs);
}

/* ---- going on ---- */

/* The end of a prompt in `recent` becomes `prompt`, whose memory `recent` gets. */
static void keep_prompt(tp_sequence *q) {
    const tp_checkpoint before = q->prompt;
    q->prompt = q->recent;
    q->recent = before;
}

/* Brings the recent checkpoint to BACK tokens before the last one. */
static void move_recent(tp_session *s, tp_sequence *q) {
    const tp_checkpoint from = q->recent;
    const int64_t n = from.count - BACK, floats = tp_input_floats(&s->model->hp);
    if (from.of_prompt) keep_prompt(q);
    tp_checkpoint *const to = &q->recent;
    tp_delta_net_replay(s, to->states, from.states, from.inputs, n);
    for (int64_t i = 0; i < s->model->recurrent_layers; i++) {
        const int64_t layer = i * TP_KEPT * floats;
        memmove(to->inputs + layer, from.inputs + layer + n * floats,
                (size_t)(BACK * floats) * sizeof(float));
    }
    to->position = from.position + n;
    to->count = BACK;
    to->of_prompt = 0;
}

/* Makes room for the inputs of a span, or says where the recent checkpoint will be. */
static void plan_span(tp_session *s, tp_sequence *q, const tp_span *span, int64_t position) {
    tp_checkpoint *const recent = &q->recent;
    const int64_t n = span->n;
    const int fits = recent->count >= 0 && recent->count + n <= TP_KEPT,
              guessed = n <= TP_KEPT && span->wanted == n;
    if (!fits && recent->count >= 0 && n < BACK) move_recent(s, q);
    else if (!fits) {
        if (recent->count >= 0 && recent->of_prompt) keep_prompt(q); /* its answer was short */
        recent->position = position + (n > TP_KEPT ? n - BACK : 0);
        recent->count = 0;
        recent->of_prompt = 0;
    }
    if (n >= BACK && !guessed) recent->of_prompt = 1;
}

static void plan_run(tp_session *s, tp_run *r) {
    tp_sequence *const q = r->sequence;
    tp_checkpoint *const recent = &q->recent;
    r->states = q->states;
    r->from = q->states;
    if (r->begin == 0) plan_span(s, q, r->span, r->position);
    const int64_t split = recent->position - r->position;
    if (split >= r->n) return; /* a later run of the span has the checkpoint */
    if (split >= 0) {
        r->split = r->first_kept = split;
        r->checkpoint = recent->states;
    }
    r->inputs = recent->inputs + recent->count * tp_input_floats(&s->model->hp);
    recent->count += r->n - r->first_kept;
}

void tp_recurrence_begin(tp_session *s) {
    for (int64_t i = 0; s->model->recurrent_layers && i < s->run_count; i++)
        plan_run(s, &s->runs[i]);
}

/* ---- going back ---- */

static int holds(const tp_checkpoint *c, int64_t n_past) {
    return c->count >= 0 && c->position <= n_past && n_past <= c->position + c->count;
}

int64_t tp_recurrence_rewindable(const tp_sequence *q, int64_t n_past) {
    int64_t best = 0;
    if (!q->session->model->recurrent_layers || n_past == q->n_past) return n_past;
    const tp_checkpoint *const both[] = {&q->recent, &q->prompt};
    for (int i = 0; i < 2; i++) {
        const int64_t last = both[i]->position + both[i]->count, at = last < n_past ? last : n_past;
        if (holds(both[i], at) && at > best) best = at;
    }
    return best;
}

void tp_recurrence_restore(tp_sequence *to, const tp_sequence *from, int64_t n_past) {
    tp_session *const s = to->session;
    const size_t bytes = tp_recurrence_bytes(to);
    if (!s->model->recurrent_layers || (to == from && n_past == from->n_past)) return;
    const tp_checkpoint *const at = holds(&from->recent, n_past)   ? &from->recent
                                    : holds(&from->prompt, n_past) ? &from->prompt
                                                                   : NULL;
    if (n_past == from->n_past) memcpy(to->states, from->states, bytes);
    else if (n_past == 0) memset(to->states, 0, bytes);
    else tp_delta_net_replay(s, to->states, at->states, at->inputs, n_past - at->position);
    if (to != from) tp_recurrence_forget(to);
    tp_checkpoint *const both[] = {&to->recent, &to->prompt};
    for (int i = 0; i < 2; i++) { /* other tokens may follow */
        const int64_t left = n_past - both[i]->position;
        if (both[i]->count > left) both[i]->count = left < 0 ? -1 : left;
    }
}
