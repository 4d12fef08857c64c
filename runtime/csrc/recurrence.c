/* What a sequence keeps of its recurrent layers. A recurrence cannot be undone, so beside the
 * states after the last token there are two checkpoints, states of an earlier position with the
 * inputs of up to TP_KEPT tokens after it, from which tp_delta_net_replay makes every state
 * between:
 *
 *   recent   lies BACK to TP_KEPT tokens back. Few tokens are appended to it; when it is full, it
 *            is brought forward. A call of more tokens makes it anew: at its first token, or where
 *            many tokens have BACK left.
 *   prompt   what `recent` was in the last call of many tokens, kept when later ones move it on.
 *
 * And position 0 is known. Per sequence that is three times tp_state_floats a layer, and 2 TP_KEPT
 * times tp_input_floats; a checkpoint takes no memory before it is made. */
#include <string.h>

#include "session.h"

enum { BACK = 16 };

static size_t states_floats(const tp_session *s) {
    return (size_t)s->model->recurrent_layers * (size_t)tp_state_floats(&s->model->hp);
}
static size_t inputs_floats(const tp_session *s) {
    return (size_t)s->model->recurrent_layers * (size_t)tp_input_floats(&s->model->hp) * TP_KEPT;
}

size_t tp_recurrence_bytes(const tp_sequence *q) {
    return states_floats(q->session) * sizeof(float);
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

/* The inputs of a layer from token n on become its first. */
static void drop_inputs(const tp_session *s, tp_checkpoint *c, int64_t n) {
    const int64_t floats = tp_input_floats(&s->model->hp);
    for (int64_t i = 0; i < s->model->recurrent_layers; i++) {
        float *const inputs = c->inputs + i * TP_KEPT * floats;
        memmove(inputs, inputs + n * floats, (size_t)((c->count - n) * floats) * sizeof(float));
    }
    c->position += n;
    c->count -= n;
}

/* Brings the recent checkpoint to BACK tokens before the last one. */
static void move_recent(tp_session *s, tp_sequence *q) {
    tp_checkpoint *const recent = &q->recent;
    const int64_t n = recent->count - BACK;
    if (recent->of_prompt) {
        const tp_checkpoint kept = q->prompt;
        q->prompt = *recent;
        *recent = kept; /* its memory */
        recent->position = q->prompt.position;
        recent->count = q->prompt.count;
        recent->of_prompt = 0;
        memcpy(recent->inputs, q->prompt.inputs, inputs_floats(s) * sizeof(float));
        tp_delta_net_replay(s, recent->states, q->prompt.states, recent->inputs, n);
    } else tp_delta_net_replay(s, recent->states, recent->states, recent->inputs, n);
    drop_inputs(s, recent, n);
}

static void plan_run(tp_session *s, tp_run *r) {
    tp_sequence *const q = r->sequence;
    tp_checkpoint *const recent = &q->recent;
    r->states = q->states;
    r->from = q->states;
    if (recent->count >= 0 && recent->count + r->n > TP_KEPT && r->n < BACK) move_recent(s, q);
    if (recent->count < 0 || recent->count + r->n > TP_KEPT) {
        if (recent->count >= 0 &&
            recent->of_prompt) { /* the prompt before, whose answer was short */
            const tp_checkpoint before = *recent;
            *recent = q->prompt; /* its memory */
            q->prompt = before;
        }
        r->split = r->first_kept = r->n > TP_KEPT ? r->n - BACK : 0;
        r->checkpoint = recent->states;
        recent->position = r->position + r->split;
        recent->count = 0;
        recent->of_prompt = r->n >= BACK;
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
