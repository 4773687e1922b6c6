#include "backend/ops.h"

const char *tfi_op_name(tfi_op_kind kind)
{
    static const char *const names[TFI_OP_COUNT] = {
        [TFI_OP_EMBED] = "EMBED",         [TFI_OP_NORM] = "NORM",
        [TFI_OP_LINEAR] = "LINEAR",       [TFI_OP_GLU] = "GLU",
        [TFI_OP_ATTENTION] = "ATTENTION", [TFI_OP_GATHER_ROWS] = "GATHER_ROWS",
        [TFI_OP_POOL] = "POOL",           [TFI_OP_L2NORM] = "L2NORM",
        [TFI_OP_LOGPROB] = "LOGPROB",     [TFI_OP_LOGITS_PROCESS] = "LOGITS_PROCESS",
        [TFI_OP_KV_COPY] = "KV_COPY",     [TFI_OP_KV_APPEND] = "KV_APPEND",
        [TFI_OP_SAMPLE] = "SAMPLE",       [TFI_OP_BEAM_STEP] = "BEAM_STEP",
        [TFI_OP_STOP] = "STOP",
    };
    return names[kind];
}
