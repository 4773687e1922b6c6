/* GATHER_ROWS, plain C: copies whole rows, which no vector code does better than memcpy; so every tier uses it. */
#include "backend/ref/ref.h"
#include "backend/rows.h"

TFI_INLINE void gather(const tfi_gather_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end;

    tfi_share(w, a->S, &begin, &end);
    for (int64_t s = begin; s < end; s++)
        memcpy(tfi_at_out(a->y, t.y, s * a->E), tfi_at(a->x, t.x, a->rows[s] * a->E), (size_t)a->E * tfi_dtype_size(t.x));
}

TFI_TYPED(gather_f32, gather, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(gather_bf16, gather, TFI_BF16, TFI_F32, TFI_BF16)

tfi_host_fn tfi_ref_gather(tfi_op_types t)
{
    if (t.x != t.y) return NULL;
    return t.x == TFI_BF16 ? gather_bf16 : gather_f32;
}
