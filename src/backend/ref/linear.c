/* LINEAR, plain C: y = act(x W^T + b) + residual, sums in double. Weights of layout 0, F32 or BF16 as their descriptor says. */
#include <math.h>

#include "backend/ref/ref.h"
#include "backend/rows.h"

double tfi_ref_activate(tfi_activation activation, double v)
{
    switch (activation) {
    case TFI_ACT_RELU:
        return v < 0 ? 0 : v;
    case TFI_ACT_GELU:
        return 0.5 * v * (1 + erf(v * 0.70710678118654752));
    case TFI_ACT_GELU_TANH:
        return 0.5 * v * (1 + tanh(0.79788456080286536 * (v + 0.044715 * v * v * v)));
    case TFI_ACT_SILU:
        return v / (1 + exp(-v));
    case TFI_ACT_TANH:
        return tanh(v);
    case TFI_ACT_SIGMOID:
        return 1 / (1 + exp(-v));
    case TFI_ACT_NONE:
    case TFI_ACT_COUNT:
        break;
    }
    return v;
}

TFI_INLINE void linear(const tfi_linear_args *a, const tfi_worker *w, tfi_op_types t)
{
    const tfi_dtype stored = a->weight->dtype;
    int64_t begin, end;

    tfi_share(w, a->M, &begin, &end);
    for (int64_t m = begin; m < end; m++) {
        for (int64_t n = 0; n < a->N; n++) {
            double sum = a->bias ? (double)a->bias[n] : 0;
            for (int64_t k = 0; k < a->K; k++)
                sum += (double)tfi_get(a->x, t.x, m * a->K + k) * (double)tfi_get(a->form->data, stored, n * a->K + k);
            sum = tfi_ref_activate(a->activation, sum);
            if (a->residual) sum += (double)tfi_get(a->residual, t.y, m * a->N + n);
            tfi_put(a->y, t.y, m * a->N + n, (float)sum);
        }
    }
}

TFI_TYPED(linear_f32_f32, linear, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(linear_f32_bf16, linear, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(linear_bf16_f32, linear, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(linear_bf16_bf16, linear, TFI_BF16, TFI_F32, TFI_BF16)

tfi_host_fn tfi_ref_linear(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{linear_f32_f32, linear_f32_bf16}, {linear_bf16_f32, linear_bf16_bf16}};
    return table[t.x][t.y];
}
