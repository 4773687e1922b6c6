/* NORM, plain C: residual add, then layer or root mean square normalisation, statistics in double. */
#include <math.h>

#include "backend/ref/ref.h"
#include "backend/rows.h"

TFI_INLINE double z_at(const tfi_norm_args *a, tfi_op_types t, int64_t i)
{
    return (double)tfi_get(a->x, t.x, i) + (a->residual ? (double)tfi_get(a->residual, t.residual, i) : 0.0);
}

TFI_INLINE void norm(const tfi_norm_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int64_t row = r * a->E;
        double mean = 0, variance = 0;

        if (a->norm == TFI_NORM_LAYER) {
            for (int64_t i = 0; i < a->E; i++) mean += z_at(a, t, row + i);
            mean /= (double)a->E;
        }
        for (int64_t i = 0; i < a->E; i++) {
            const double difference = z_at(a, t, row + i) - mean;
            variance += difference * difference;
        }
        variance /= (double)a->E;
        const double factor = 1 / sqrt(variance + (double)a->eps);
        for (int64_t i = 0; i < a->E; i++) {
            const double bias = a->bias ? (double)a->bias[i] : 0;
            tfi_put(a->y, t.y, row + i, (float)((z_at(a, t, row + i) - mean) * factor * (double)a->gain[i] + bias));
        }
    }
}

TFI_TYPED(norm_f32_f32_f32, norm, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(norm_f32_f32_bf16, norm, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(norm_f32_bf16_f32, norm, TFI_F32, TFI_BF16, TFI_F32)
TFI_TYPED(norm_f32_bf16_bf16, norm, TFI_F32, TFI_BF16, TFI_BF16)
TFI_TYPED(norm_bf16_f32_f32, norm, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(norm_bf16_f32_bf16, norm, TFI_BF16, TFI_F32, TFI_BF16)
TFI_TYPED(norm_bf16_bf16_f32, norm, TFI_BF16, TFI_BF16, TFI_F32)
TFI_TYPED(norm_bf16_bf16_bf16, norm, TFI_BF16, TFI_BF16, TFI_BF16)

tfi_host_fn tfi_ref_norm(tfi_op_types t)
{
    static const tfi_host_fn table[2][2][2] = {
        {{norm_f32_f32_f32, norm_f32_f32_bf16}, {norm_f32_bf16_f32, norm_f32_bf16_bf16}},
        {{norm_bf16_f32_f32, norm_bf16_f32_bf16}, {norm_bf16_bf16_f32, norm_bf16_bf16_bf16}}};
    return table[t.x][t.residual][t.y];
}
