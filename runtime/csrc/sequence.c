/* Sequences: the tokens of one conversation each, as the keys, values and states that they left. */
#include <string.h>

#include "fpenv.h"
#include "kv_cache.h"

/* KV heads of all layers with attention. */
static int64_t all_heads(const tp_session *s) {
    return (int64_t)(s->model->hp.layers - s->model->recurrent_layers) * s->model->hp.kv_heads;
}

int tp_sequence_init(tp_sequence *q, tp_session *s, int64_t n_ctx) {
    const uint64_t blocks = (uint64_t)(all_heads(s) * tp_kv_blocks(n_ctx)),
                   bytes = (uint64_t)tp_kv_bytes(s);
    *q = (tp_sequence){.session = s, .n_ctx = n_ctx};
    q->k_cache = tp_alloc(blocks, bytes);
    q->v_cache = tp_alloc(blocks, bytes);
    const int status = tp_recurrence_init(q);
    return q->k_cache && q->v_cache ? status : TP_ERR_MEMORY;
}

void tp_sequence_drop(tp_sequence *q) {
    tp_free(q->k_cache);
    tp_free(q->v_cache);
    tp_recurrence_drop(q);
}

int tp_sequence_new(tp_session *s, int64_t n_ctx, tp_sequence **out) {
    if (!out) return TP_ERR_ARGUMENT;
    *out = NULL;
    if (!s || n_ctx < 0 || n_ctx > s->n_ctx) return TP_ERR_ARGUMENT;
    tp_sequence *q = tp_alloc(1, sizeof *q);
    if (!q) return TP_ERR_MEMORY;
    const int status = tp_sequence_init(q, s, n_ctx ? n_ctx : s->n_ctx);
    if (status) {
        tp_sequence_free(q);
        return status;
    }
    *out = q;
    return TP_OK;
}

void tp_sequence_free(tp_sequence *q) {
    if (!q || q->is_own) return; /* the session may be gone */
    tp_sequence_drop(q);
    tp_free(q);
}

int64_t tp_sequence_n_past(const tp_sequence *q) { return q ? q->n_past : 0; }

int64_t tp_sequence_rewindable(const tp_sequence *q, int64_t n_past) {
    return q && n_past >= 0 && n_past <= q->n_past ? tp_recurrence_rewindable(q, n_past) : 0;
}

/* 1 if a sequence can be rewound, or copied, to n_past. */
static int is_rewindable(const tp_sequence *q, int64_t n_past) {
    return n_past >= 0 && n_past <= q->n_past && tp_recurrence_rewindable(q, n_past) == n_past;
}

static TP_NOINLINE void become(tp_sequence *to, const tp_sequence *from, int64_t n_past) {
    tp_recurrence_restore(to, from, n_past);
    to->n_past = n_past;
}

int tp_sequence_rewind(tp_sequence *q, int64_t n_past) {
    if (!q || !is_rewindable(q, n_past)) return TP_ERR_ARGUMENT;
    const tp_fpenv before = tp_fpenv_enter();
    become(q, q, n_past);
    tp_fpenv_leave(before);
    return TP_OK;
}

/* ---- the state as bytes: of each head of each layer its blocks of keys, then of values; then of
 * each recurrent layer its states, if there was a token ---- */

/* Bytes of the blocks that hold n positions of one head. */
static size_t head_bytes(const tp_sequence *q, int64_t n) {
    return (size_t)(tp_kv_blocks(n) * tp_kv_bytes(q->session));
}

int tp_sequence_copy(tp_sequence *to, const tp_sequence *from, int64_t n_past) {
    if (!to || !from || to->session != from->session || !is_rewindable(from, n_past))
        return TP_ERR_ARGUMENT;
    if (n_past > to->n_ctx) return TP_ERR_CONTEXT;
    for (int64_t h = 0; to != from && h < all_heads(to->session); h++) {
        memcpy(tp_kv_at(to, to->k_cache, h, 0), tp_kv_at(from, from->k_cache, h, 0),
               head_bytes(from, n_past));
        memcpy(tp_kv_at(to, to->v_cache, h, 0), tp_kv_at(from, from->v_cache, h, 0),
               head_bytes(from, n_past));
    }
    const tp_fpenv before = tp_fpenv_enter();
    become(to, from, n_past);
    tp_fpenv_leave(before);
    return TP_OK;
}

/* Bytes of the recurrent states in what is saved. */
static size_t states_bytes(const tp_sequence *q, int64_t n_past) {
    return n_past ? tp_recurrence_bytes(q) : 0;
}

uint64_t tp_sequence_state_bytes(const tp_sequence *q, int64_t n_past) {
    if (!q || n_past < 0 || n_past > q->n_ctx) return 0;
    return 2 * (uint64_t)all_heads(q->session) * head_bytes(q, n_past) + states_bytes(q, n_past);
}

int tp_sequence_save(const tp_sequence *q, uint8_t *state, uint64_t nbytes) {
    if (!q || !state) return TP_ERR_ARGUMENT;
    if (nbytes != tp_sequence_state_bytes(q, q->n_past)) return TP_ERR_BYTES;
    const size_t bytes = head_bytes(q, q->n_past);
    for (int64_t h = 0; h < all_heads(q->session); h++, state += 2 * bytes) {
        memcpy(state, tp_kv_at(q, q->k_cache, h, 0), bytes);
        memcpy(state + bytes, tp_kv_at(q, q->v_cache, h, 0), bytes);
    }
    if (q->states) memcpy(state, q->states, states_bytes(q, q->n_past));
    return TP_OK;
}

int tp_sequence_load(tp_sequence *q, int64_t n_past, const uint8_t *state, uint64_t nbytes) {
    if (!q || !state || n_past < 0) return TP_ERR_ARGUMENT;
    if (n_past > q->n_ctx) return TP_ERR_CONTEXT;
    if (nbytes != tp_sequence_state_bytes(q, n_past)) return TP_ERR_BYTES;
    const size_t bytes = head_bytes(q, n_past);
    for (int64_t h = 0; h < all_heads(q->session); h++, state += 2 * bytes) {
        memcpy(tp_kv_at(q, q->k_cache, h, 0), state, bytes);
        memcpy(tp_kv_at(q, q->v_cache, h, 0), state + bytes, bytes);
    }
    if (q->states && n_past) memcpy(q->states, state, states_bytes(q, n_past));
    if (q->states && !n_past) memset(q->states, 0, tp_recurrence_bytes(q));
    tp_recurrence_forget(q);
    q->n_past = n_past;
    return TP_OK;
}
