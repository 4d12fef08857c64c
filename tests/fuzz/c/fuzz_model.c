/* A small model with some of its numbers and bytes replaced, then a session of it. What tp_model_new
 * takes, tp_eval computes without leaving its memory, and with the bits of the scalar kernels. */
#include <math.h>

#include "tests/c/session_model.h"
#include "tests/fuzz/c/input.h"

enum { STEPS = 3 };

/* Replaces a number of the hyperparameters that is not a pointer. */
static void poke_hparams(fixture *f, input *in) {
    const size_t words = offsetof(tp_hparams, inv_freq) / 4;
    const uint32_t value = (uint32_t)take_size(in);
    memcpy((uint8_t *)&f->hp + take(in, 1) % words * 4, &value, 4);
}

/* Replaces a number of a tensor, or bytes of its data. The data is what nbytes says, as the caller
 * promises. */
static void poke_tensor(fixture *f, tp_tensor *t, input *in) {
    const uint64_t what = take(in, 1) % 12, at = take(in, 2), value = (uint64_t)take_size(in);
    switch (what) {
        case 0: t->rows = (int64_t)value; break;
        case 1: t->cols = (int64_t)value; break;
        case 2: t->layout = (int8_t)value; break;
        case 3: t->tile[at % 3] = (int32_t)value; break;
        case 4: t->rotated = (int32_t)value; break;
        case 5: memcpy(&t->scale, &value, 4); break;
        case 6: t->data = NULL; return;
        case 7: t->nbytes = value; break;
        case 8: *t = tp_test_tensor((int)(value % TP_LAYOUT_COUNT), t->rows, t->cols); break;
        default:
            if (t->data && t->nbytes)
                for (size_t i = 0; i < 4; i++)
                    ((uint8_t *)(uintptr_t)t->data)[(at * 7 + i) % t->nbytes] =
                        (uint8_t)(value >> 8 * i);
            return;
    }
    if (t->nbytes > MOST_BYTES || f->count == MAX_PARTS) t->nbytes = 0;
    uint8_t *data = memory((size_t)t->nbytes);
    if (what != 8 || !t->nbytes || tp_random_tensor(t, data, &f->state))
        fill(*in, data, (size_t)t->nbytes);
    t->data = data;
    if (f->count < MAX_PARTS) f->parts[f->count++] = data;
}

static void evaluate(const tp_model *m, input in, int isa, float *logits) {
    tp_session_params p = {.n_ctx = (int32_t)(take(&in, 1) % 12),
                           .threads = (int32_t)(take(&in, 1) % 3),
                           .isa = isa,
                           .kv_type = (int32_t)take(&in, 1) % 2,
                           .batch = (int32_t)(take(&in, 1) % 6)};
    const uint64_t other = take(&in, 1);
    if (other == 1) p.n_ctx = (int32_t)take(&in, 4);
    if (other == 2) p.threads = (int32_t)(take(&in, 4) | 256) + 1;
    if (other == 3) p.kv_type = (int32_t)take(&in, 4);
    if (other == 4) p.batch = (int32_t)take(&in, 4);
    tp_session *s = NULL;
    if (tp_session_new(m, &p, &s) != TP_OK) {
        DEMAND(!s, "a session of a failure");
        return;
    }
    for (int i = 0; i < STEPS; i++) {
        int32_t tokens[4];
        for (int j = 0; j < 4; j++) tokens[j] = (int8_t)take(&in, 1);
        const int64_t n = (int64_t)(take(&in, 1) % 5), before = tp_n_past(s);
        const int status = tp_eval(s, tokens, n, TP_LOGITS_LAST, logits);
        DEMAND(tp_n_past(s) == before + (status == TP_OK ? n : 0), "step %d", i);
        tp_rewind(s, (int64_t)(int8_t)take(&in, 1));
    }
    tp_session_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    (void)session; /* that of the tests may not fail */
    input in = {data, data + size};
    const uint64_t kind = take(&in, 1);
    fixture *f = make((recipe){.embd = (int)(take(&in, 1) % (TP_LAYOUT_Q4_K + 1)),
                               .head = (int)(take(&in, 1) % TP_LAYOUT_IQ2_BN_R4) - 1,
                               .activation = (int)(kind & 1),
                               .sub_norms = kind >> 1 & 1,
                               .linear = TP_LAYOUT_I2_S + (int)(take(&in, 1) % 13),
                               .floats = (kind >> 2 & 1) | (kind >> 4 & 3 ? 1 : 0),
                               .rich = kind >> 3 & 1,
                               .hybrid = (hybrid)(kind >> 4 & 3)});
    tp_tensor *const globals[] = {&f->embd, &f->norm, &f->head};
    const size_t per_layer = offsetof(tp_layer, slides) / sizeof(tp_tensor);
    for (uint64_t pokes = take(&in, 1) % 8; pokes; pokes--) {
        const uint64_t which = take(&in, 1);
        if (which < 64) poke_hparams(f, &in);
        else if (which < 80) f->layers[which % 2].slides = (int32_t)take(&in, 1);
        else if (which < 112) poke_tensor(f, globals[which % 3], &in);
        else poke_tensor(f, (tp_tensor *)&f->layers[which % 2] + take(&in, 1) % per_layer, &in);
    }
    for (size_t i = 0; i < 3; i++) tame(globals[i]);
    for (size_t i = 0; i < LAYERS * per_layer; i++)
        tame((tp_tensor *)&f->layers[i / per_layer] + i % per_layer);
    if (f->hp.layers > LAYERS) f->hp.layers = LAYERS; /* there are no more */
    if (f->hp.head_dim > HEAD_DIM) f->hp.head_dim = HEAD_DIM;
    for (size_t i = 0; i < sizeof f->hp.sign_widths / sizeof *f->hp.sign_widths; i++)
        if (f->hp.sign_widths[i] > FFN)
            f->hp.sign_widths[i] = FFN; /* there are signs for so many */
    tp_model *m = NULL;
    const int status = tp_model_new(&f->hp, f->layers, &f->embd, &f->norm, &f->head, &m);
    DEMAND((status == TP_OK) == (m != NULL), "%s", tp_error_place());
    if (m) {
        const size_t vocab = (size_t)f->hp.vocab_size;
        float *first = memory(4 * vocab), *logits = memory(4 * vocab);
        const int isa = (int)(take(&in, 1) % (uint64_t)tp_isa_count());
        evaluate(m, in, TP_ISA_SCALAR, first);
        if (isa && tp_isa_available(isa)) evaluate(m, in, isa, logits);
        for (size_t i = 0; isa && tp_isa_available(isa) && i < vocab; i++)
            DEMAND(memcmp(first + i, logits + i, 4) == 0 || (isnan(first[i]) && isnan(logits[i])),
                   "isa %d logit %zu: %g %g", isa, i, (double)first[i], (double)logits[i]);
        free(logits);
        free(first);
    }
    tp_model_free(m);
    drop(f);
    return 0;
}
