/* ATTENTION: which kernels serve a call; what it computes: src/backend/ref/attention.c
 *
 * Rows whose keys come from the store are of two sorts in one run: sequences with one row (they decode) are bound by the bytes
 * of their keys and go to attention_decode; the others, and all rows whose keys are in x, go in tiles to tensor cores or, where
 * types or the device ask for it, to plain fp32. A call whose sequences have one row at most launches no tiles; one of a single
 * sequence that may have more launches nothing else. */
#include "attention.cuh"

static bool on_tensor_cores(const tfi_cuda_launch *l, const attention_call *c)
{
    const bool one_type = !c->kv.blocks || c->kv.dtype == c->t.x;
    if (!one_type || (c->a.bias && c->a.max_distance > BIAS_DISTANCE_MAX)) return false;
    if (c->t.x == TFI_F16) return l->capability >= 80 || (l->capability >= 75 && c->a.D <= 128);
    return c->t.x == TFI_BF16 && l->capability >= 80;
}

/* Vectors of 16 bytes in the narrowest of the types. */
static bool heads_are_aligned(const attention_call *c)
{
    return in_vectors(c->a.D, c->a.x, c->kv.blocks) && c->a.x_stride % 8 == 0;
}

extern "C" tf_status tfi_cuda_attention(const tfi_cuda_launch *l, const tfi_attention_args *a, tfi_op_types t, int64_t max_rows,
                                        int64_t max_tokens, const tfi_kv_append_args *append)
{
    const bool stored = a->attend == TFI_ATTEND_CACHE || a->attend == TFI_ATTEND_SOURCE;
    attention_call c = {};
    tf_status status = TF_STATUS_OK;

    if (a->R == 0 || a->B == 0) return TF_STATUS_OK;
    c.a = *a;
    c.t = t;
    if (stored) c.kv = kv_call_of(&a->kv, a->attend);
    c.live = l->live;
    c.causal = a->attend == TFI_ATTEND_CAUSAL || a->attend == TFI_ATTEND_CACHE;
    c.vectors = heads_are_aligned(&c);
    c.skip_single = stored && (a->B > 1 || max_rows <= 1); /* one sequence takes one kernel */
    if (append && !tfi_cuda_decode_appends(&c, append)) {
        status = tfi_cuda_kv_append(l, append, t, TFI_ATTEND_CACHE);
        append = NULL;
    }
    if (c.skip_single && status == TF_STATUS_OK) status = tfi_cuda_attention_decode(l, &c, max_tokens, append);
    if (status != TF_STATUS_OK || (stored && max_rows <= 1)) return status;
    if (!on_tensor_cores(l, &c)) return tfi_cuda_attention_fma(l, &c);
    if (!tfi_cuda_attention_wgmma_fits(&c, l->capability)) return tfi_cuda_attention_mma(l, &c, max_rows);
    return tfi_cuda_attention_wgmma(l, &c, max_rows, stored ? max_tokens : max_rows);
}
