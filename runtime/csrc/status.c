/* What the library says about itself: its ABI version and the text of every status. */
#include "internal.h"

int tp_abi_version(void) { return TP_ABI_VERSION; }

const char *tp_status_text(int status) {
    switch ((tp_status)status) {
        case TP_OK: return "no error";
        case TP_ERR_ARGUMENT: return "an argument is missing, out of range or not aligned";
        case TP_ERR_SHAPE:
            return "a tensor's shape does not fit its layout, its tiles or the hyperparameters";
        case TP_ERR_LAYOUT: return "there is no kernel for this tensor's layout in this place";
        case TP_ERR_BYTES: return "a tensor's size in bytes does not match its layout and shape";
        case TP_ERR_ISA: return "the instruction set is unknown or not available on this CPU";
        case TP_ERR_TOKEN: return "a token id lies outside the vocabulary";
        case TP_ERR_CONTEXT: return "the tokens do not fit into the session's context";
        case TP_ERR_MEMORY: return "not enough memory";
        case TP_ERR_THREADS: return "a thread could not be started";
        case TP_ERR_FINITE: return "a value is not finite";
        case TP_ERR_OVERFLOW: return "a value is too large for the type that it is encoded as";
    }
    return "unknown status";
}
