/* Runs a model that runtime/dump.py wrote on every instruction set of this CPU. Prints one line
 * each: a digest of all logits and the greedy tokens after the prompt. Exits with 1 if the lines
 * differ. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/csrc/include/tritpack.h"

/* Pointers have 4 or 8 bytes. Those of hparams come last and are not in the file; those of
 * tensors are, in 8 bytes. */
enum {
    HPARAMS_BYTES = offsetof(tp_hparams, sign_widths) + sizeof((tp_hparams *)0)->sign_widths,
    TENSORS = offsetof(tp_layer, slides) / sizeof(tp_tensor)
};
_Static_assert(offsetof(tp_hparams, inv_freq) < HPARAMS_BYTES + sizeof(void *),
               "sign_widths is the last field that is not a pointer");
_Static_assert(offsetof(tp_tensor, rows) == 8, "a pointer and what follows take 8 bytes");

typedef struct numbers {
    uint32_t layers, prompt, generate, frequencies, signs;
} numbers;

/* Returns NULL if the file cannot be read, is not a dump or is not a whole one. */
static uint8_t *read_dump(const char *path) {
    FILE *f = fopen(path, "rb");
    const long size = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    uint8_t *data = size >= (long)(8 + sizeof(uint64_t) + sizeof(numbers) + HPARAMS_BYTES)
                        ? aligned_alloc(64, ((size_t)size + 63) / 64 * 64)
                        : NULL;
    if (data) {
        rewind(f);
        uint64_t bytes;
        if (fread(data, 1, (size_t)size, f) != (size_t)size || memcmp(data, "tpdump3", 8) ||
            (memcpy(&bytes, data + 8, 8), bytes != (uint64_t)size))
            data = NULL;
    }
    if (f) fclose(f);
    return data;
}

static void place(tp_tensor *t, const uint8_t *file) {
    t->data = t->data ? file + (uintptr_t)t->data : NULL;
}

static int32_t highest(const float *logits, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
    return best;
}

int main(int argc, char **argv) {
    uint8_t *file = argc == 2 ? read_dump(argv[1]) : NULL;
    if (!file) {
        fprintf(stderr, "usage: run_dump FILE, a whole file of runtime/dump.py\n");
        return 2;
    }
    numbers n;
    tp_hparams hp = {0};
    uint8_t *p = file + 16;
#define NEXT(to, bytes) (memcpy(to, p, bytes), p += (bytes))
    NEXT(&n, sizeof n);
    NEXT(&hp, HPARAMS_BYTES);
    tp_layer *layers = malloc(n.layers * sizeof *layers);
    tp_tensor ends[3]; /* embedding, norm, head */
    NEXT(layers, n.layers * sizeof *layers);
    NEXT(ends, sizeof ends);
    const size_t total = n.prompt + n.generate;
    int32_t *tokens = malloc(total * sizeof *tokens), *first = malloc(total * sizeof *first);
    float *frequencies = malloc(n.frequencies * sizeof *frequencies),
          *signs = malloc(n.signs * sizeof *signs + 1),
          *logits = malloc((size_t)hp.vocab_size * n.prompt * sizeof *logits);
    NEXT(tokens, n.prompt * sizeof *tokens);
    NEXT(frequencies, n.frequencies * sizeof *frequencies);
    NEXT(signs, n.signs * sizeof *signs);
    hp.inv_freq = frequencies;
    hp.inv_freq_sliding =
        n.frequencies > (uint32_t)hp.rotary_dim / 2 ? frequencies + hp.rotary_dim / 2 : NULL;
    hp.signs = signs;
    for (uint32_t i = 0; i < n.layers * TENSORS; i++)
        place((tp_tensor *)&layers[i / TENSORS] + i % TENSORS, file);
    for (int i = 0; i < 3; i++) place(&ends[i], file);
    tp_model *model = NULL;
    int status = tp_model_new(&hp, layers, &ends[0], &ends[1], &ends[2], &model), differ = 0;
    uint64_t first_digest = 0;
    for (int isa = 0; isa < tp_isa_count() && !status; isa++) {
        if (!tp_isa_available(isa)) continue;
        const tp_session_params params = {.n_ctx = (int32_t)total, .threads = 2, .isa = isa};
        tp_session *s = NULL;
        uint64_t digest = UINT64_C(14695981039346656037);
        status = tp_session_new(model, &params, &s);
        for (size_t at = 0; at < total && !status;) {
            const size_t count = at ? 1 : n.prompt;
            status = tp_eval(s, tokens + at, (int64_t)count, TP_LOGITS_ALL, logits);
            const uint8_t *bytes = (const uint8_t *)logits;
            for (size_t i = 0; i < count * (size_t)hp.vocab_size * 4; i++)
                digest = (digest ^ bytes[i]) * UINT64_C(1099511628211);
            at += count;
            if (at < total)
                tokens[at] = highest(logits + (count - 1) * (size_t)hp.vocab_size, hp.vocab_size);
        }
        tp_session_free(s);
        if (!first_digest) {
            first_digest = digest;
            memcpy(first, tokens, total * sizeof *tokens);
        }
        differ |= digest != first_digest || memcmp(first, tokens, total * sizeof *tokens) != 0;
        printf("%s %016llx", tp_isa_name(isa), (unsigned long long)digest);
        for (size_t i = n.prompt; i < total; i++) printf(" %d", (int)tokens[i]);
        printf("\n");
    }
    if (status) fprintf(stderr, "%s %s\n", tp_error_place(), tp_status_text(status));
    tp_model_free(model);
    return status ? 2 : differ;
}
