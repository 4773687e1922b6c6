/* The reference functions of each op, by operand types (all F32 or BF16: tfi_ref_resolve() saw to that). */
#ifndef TFI_BACKEND_REF_H
#define TFI_BACKEND_REF_H

#include "backend/host_ops.h"

tfi_host_fn tfi_ref_embed(tfi_op_types t);
tfi_host_fn tfi_ref_norm(tfi_op_types t);
tfi_host_fn tfi_ref_linear(tfi_op_types t);
tfi_host_fn tfi_ref_attention(tfi_op_types t);
tfi_host_fn tfi_ref_kv_append(tfi_op_types t);
tfi_host_fn tfi_ref_gather(tfi_op_types t);
tfi_host_fn tfi_ref_pool(tfi_op_types t);
tfi_host_fn tfi_ref_l2norm(tfi_op_types t);
tfi_host_fn tfi_ref_glu(tfi_op_types t);
tfi_host_fn tfi_ref_logprob(tfi_op_types t);
tfi_host_fn tfi_ref_kv_copy(tfi_op_types t);
tfi_host_fn tfi_ref_process(tfi_op_types t);
tfi_host_fn tfi_ref_sample(tfi_op_types t);
tfi_host_fn tfi_ref_beam_step(tfi_op_types t);
tfi_host_fn tfi_ref_stop(tfi_op_types t);

/* Of LINEAR and GLU. */
double tfi_ref_activate(tfi_activation activation, double v);

/* Scratch bytes of a worker of the reference attention for up to this many keys. */
static inline int64_t tfi_ref_attention_scratch(int64_t max_keys)
{
    return max_keys * (int64_t)sizeof(double);
}

/* Of LOGITS_PROCESS over rows of V logits, and of BEAM_STEP. */
int64_t tfi_ref_process_scratch(int64_t V);
int64_t tfi_ref_beam_step_scratch(void);

#endif
