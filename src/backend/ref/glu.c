/* GLU, plain C: the activated left half of a row times its right half, in double. */
#include "backend/ref/ref.h"
#include "backend/rows.h"

TFI_INLINE void glu(const tfi_glu_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int64_t gate = 2 * r * a->F, up = gate + a->F;
        for (int64_t i = 0; i < a->F; i++)
            tfi_put(a->y, t.y, r * a->F + i,
                    (float)(tfi_ref_activate(a->activation, (double)tfi_get(a->x, t.x, gate + i)) *
                            (double)tfi_get(a->x, t.x, up + i)));
    }
}

TFI_TYPED(glu_f32_f32, glu, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(glu_f32_bf16, glu, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(glu_bf16_f32, glu, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(glu_bf16_bf16, glu, TFI_BF16, TFI_F32, TFI_BF16)

tfi_host_fn tfi_ref_glu(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{glu_f32_f32, glu_f32_bf16}, {glu_bf16_f32, glu_bf16_bf16}};
    return table[t.x][t.y];
}
