/* GLU, vectorised; meaning: backend/ref/glu.c. Two runs of a row read, one written. */
#include "backend/cpu/activation_tmpl.h"

TFI_INLINE void glu_step(const tfi_glu_args *a, tfi_op_types t, int64_t r, int64_t i, int64_t n)
{
    const int64_t gate = 2 * r * a->F + i;
    store_n(a->y, t.y, r * a->F + i, activate(load_n(a->x, t.x, gate, n), a->activation) * load_n(a->x, t.x, gate + a->F, n),
            n);
}

TFI_INLINE void glu(const tfi_glu_args *args, const tfi_worker *w, tfi_op_types t)
{
    const tfi_glu_args copy = *args, *a = &copy; /* vector stores may alias args, but not this */
    const int64_t whole = a->F - a->F % VEC;
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        for (int64_t i = 0; i < whole; i += VEC) glu_step(a, t, r, i, VEC);
        if (whole < a->F) glu_step(a, t, r, whole, a->F - whole);
    }
}

TFI_TYPED(glu_f32_f32, glu, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(glu_f32_bf16, glu, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(glu_bf16_f32, glu, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(glu_bf16_bf16, glu, TFI_BF16, TFI_F32, TFI_BF16)

static tfi_host_fn glu_fn(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{glu_f32_f32, glu_f32_bf16}, {glu_bf16_f32, glu_bf16_bf16}};
    return table[t.x][t.y];
}
