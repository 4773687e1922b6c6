/* All vectorised ops over the vector layer included before: a tier is this file compiled for one instruction set. */
#include "backend/cpu/tiers.h"

#include "backend/cpu/vec_typed.h"

#include "backend/cpu/operand_f32.h"

#include "backend/cpu/attention_tmpl.h"
#include "backend/cpu/embed_tmpl.h"
#include "backend/cpu/glu_tmpl.h"
#include "backend/cpu/kv_append_tmpl.h"
#include "backend/cpu/l2norm_tmpl.h"
#include "backend/cpu/logprob_tmpl.h"
#include "backend/cpu/norm_tmpl.h"
#include "backend/cpu/pool_tmpl.h"

TFI_TYPED(attention_f32_f32, attention, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(attention_f32_bf16, attention, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(attention_bf16_f32, attention, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(attention_bf16_bf16, attention, TFI_BF16, TFI_F32, TFI_BF16)

static tfi_host_fn attention_fn(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{attention_f32_f32, attention_f32_bf16}, {attention_bf16_f32, attention_bf16_bf16}};
    return table[t.x][t.y];
}

static tfi_host_fn tier_fn(tfi_op_kind kind, tfi_op_types t)
{
    switch (kind) {
    case TFI_OP_EMBED:
        return embed_fn(t);
    case TFI_OP_NORM:
        return norm_fn(t);
    case TFI_OP_ATTENTION:
        return attention_fn(t);
    case TFI_OP_KV_APPEND:
        return kv_append_fn(t);
    case TFI_OP_POOL:
        return pool_fn(t);
    case TFI_OP_L2NORM:
        return l2norm_fn(t);
    case TFI_OP_GLU:
        return glu_fn(t);
    case TFI_OP_LOGPROB:
        return logprob;
    default:
        return NULL;
    }
}
