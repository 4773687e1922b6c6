/* L2NORM, plain C: rows divided by their length, which is at least eps; the sum in double. */
#include <math.h>

#include "backend/ref/ref.h"
#include "backend/rows.h"

TFI_INLINE void l2norm(const tfi_l2norm_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        double sum = 0;
        for (int64_t i = 0; i < a->E; i++) {
            const double v = (double)tfi_get(a->x, t.x, r * a->E + i);
            sum += v * v;
        }
        const double length = sqrt(sum), divisor = length < (double)a->eps ? (double)a->eps : length;
        for (int64_t i = 0; i < a->E; i++)
            tfi_put(a->y, t.y, r * a->E + i, (float)((double)tfi_get(a->x, t.x, r * a->E + i) / divisor));
    }
}

TFI_TYPED(l2norm_f32_f32, l2norm, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(l2norm_f32_bf16, l2norm, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(l2norm_bf16_f32, l2norm, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(l2norm_bf16_bf16, l2norm, TFI_BF16, TFI_F32, TFI_BF16)

tfi_host_fn tfi_ref_l2norm(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{l2norm_f32_f32, l2norm_f32_bf16}, {l2norm_bf16_f32, l2norm_bf16_bf16}};
    return table[t.x][t.y];
}
