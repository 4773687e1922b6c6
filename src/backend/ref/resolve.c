/* Which reference function serves an op. */
#include "backend/ref/ref.h"

static int is_float(tfi_dtype t)
{
    return t == TFI_F32 || t == TFI_BF16;
}

tfi_host_fn tfi_ref_resolve(tfi_op_kind kind, tfi_op_types t)
{
    if (!is_float(t.x) || !is_float(t.residual) || !is_float(t.y)) return NULL;
    switch (kind) {
    case TFI_OP_EMBED:
        return tfi_ref_embed(t);
    case TFI_OP_NORM:
        return tfi_ref_norm(t);
    case TFI_OP_LINEAR:
        return tfi_ref_linear(t);
    case TFI_OP_ATTENTION:
        return tfi_ref_attention(t);
    case TFI_OP_GATHER_ROWS:
        return tfi_ref_gather(t);
    case TFI_OP_POOL:
        return tfi_ref_pool(t);
    case TFI_OP_L2NORM:
        return tfi_ref_l2norm(t);
    case TFI_OP_GLU:
        return tfi_ref_glu(t);
    case TFI_OP_LOGPROB:
        return tfi_ref_logprob(t);
    case TFI_OP_KV_COPY:
        return tfi_ref_kv_copy(t);
    case TFI_OP_KV_APPEND:
        return tfi_ref_kv_append(t);
    case TFI_OP_LOGITS_PROCESS:
        return tfi_ref_process(t);
    case TFI_OP_SAMPLE:
        return tfi_ref_sample(t);
    case TFI_OP_BEAM_STEP:
        return tfi_ref_beam_step(t);
    case TFI_OP_STOP:
        return tfi_ref_stop(t);
    default:
        return NULL;
    }
}
