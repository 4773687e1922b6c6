/* Shared by the ops that process logits and draw tokens. */
#ifndef TFI_BACKEND_REF_PROCESS_H
#define TFI_BACKEND_REF_PROCESS_H

#include "backend/host_ops.h"

/* y holds the row and is changed in place; scratch has tfi_ref_process_scratch() bytes. */
void tfi_constrain_row(const tfi_slot *slot, float *y, int64_t V, void *scratch);
void tfi_warp_row(const tfi_slot *slot, float *y, int64_t V, void *scratch);

/* Philox's number for a seed, the tokens drawn before, the sequence or candidate, and what it is used for: 0 a token, 1 the
 * race of candidates in beam search. In [0, 1). */
double tfi_uniform(uint64_t seed, uint32_t step, uint32_t index, uint32_t use);

/* Logits are F32 whatever else is. */
static inline int tfi_is_f32(tfi_op_types t)
{
    return t.x == TFI_F32 && t.residual == TFI_F32 && t.y == TFI_F32;
}

static inline int tfi_is_eos(const tfi_sampling *s, int32_t token)
{
    for (int32_t i = 0; i < s->eos_count; i++)
        if (s->eos[i] == token) return 1;
    return 0;
}

#endif
