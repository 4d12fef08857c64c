/* The basis in which rotated tensors are stored (tp_layer): which one a model has, and the signs
 * of a width. The transform itself is the kernel `hadamard`. */
#include "model.h"

enum { SIGN_WIDTHS = sizeof((tp_hparams *)0)->sign_widths / sizeof(int32_t) };

int64_t tp_count_signs(const tp_hparams *hp) {
    int64_t total = 0;
    for (int i = 0; i < SIGN_WIDTHS; i++) total += hp->sign_widths[i];
    return total;
}

int tp_check_rotation(const tp_hparams *hp) {
    const int32_t block = hp->rotation_block;
    if (block < 0 || block == 1 || block > TP_MAX_COLS || (block & (block - 1)))
        return TP_ERR_ARGUMENT;
    for (int i = 0; i < SIGN_WIDTHS; i++) {
        const int32_t width = hp->sign_widths[i];
        if (width < 0 || width > TP_MAX_COLS) return TP_ERR_ARGUMENT;
        for (int j = 0; width && j < i; j++)
            if (hp->sign_widths[j] == width || hp->sign_widths[j] == 0) return TP_ERR_ARGUMENT;
    }
    const int64_t count = tp_count_signs(hp);
    if (count && !hp->signs) return TP_ERR_ARGUMENT;
    for (int64_t i = 0; i < count; i++)
        if (hp->signs[i] != 1.0f && hp->signs[i] != -1.0f) return TP_ERR_ARGUMENT;
    return TP_OK;
}

int tp_can_rotate(const tp_hparams *hp, int64_t cols) {
    if (!hp->rotation_block || cols % hp->rotation_block) return 0;
    int found = tp_count_signs(hp) == 0;
    for (int i = 0; i < SIGN_WIDTHS; i++) found |= hp->sign_widths[i] == cols;
    return found;
}

const float *tp_signs_of(const tp_model *m, int64_t width) {
    const float *at = m->signs;
    for (int i = 0; at && i < SIGN_WIDTHS; at += m->hp.sign_widths[i++])
        if (m->hp.sign_widths[i] == width) return at;
    return NULL;
}
