/* ATTENTION, plain C: each row of each head by itself; scores, softmax and sums in double. */
#include <math.h>

#include "backend/ref/ref.h"
#include "backend/rows.h"

/* One head of one query row at `row`; keys are rows [begin, end). */
TFI_INLINE void attend(const tfi_attention_args *a, tfi_op_types t, int64_t row, int64_t begin, int64_t end, int64_t head,
                       double *scores)
{
    const int64_t width = (int64_t)a->H * a->D, stride = 3 * width;
    const int64_t q = row * stride + head * a->D, k = width + head * a->D, v = 2 * width + head * a->D;
    double max = -INFINITY, total = 0;

    for (int64_t j = begin; j < end; j++) {
        double dot = 0;
        for (int64_t d = 0; d < a->D; d++)
            dot += (double)tfi_get(a->x, t.x, q + d) * (double)tfi_get(a->x, t.x, j * stride + k + d);
        scores[j - begin] = dot * (double)a->scale;
        if (scores[j - begin] > max) max = scores[j - begin];
    }
    for (int64_t j = 0; j < end - begin; j++) total += scores[j] = exp(scores[j] - max);
    for (int64_t d = 0; d < a->D; d++) {
        double sum = 0;
        for (int64_t j = begin; j < end; j++) sum += scores[j - begin] * (double)tfi_get(a->x, t.x, j * stride + v + d);
        tfi_put(a->y, t.y, row * width + head * a->D + d, (float)(sum / total));
    }
}

TFI_INLINE void attention(const tfi_attention_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t b = 0; b < a->B; b++) {
        for (int64_t row = a->offsets[b]; row < a->offsets[b + 1]; row++) {
            if (row < begin || row >= end) continue;
            for (int64_t head = 0; head < a->H; head++) attend(a, t, row, a->offsets[b], a->offsets[b + 1], head, w->scratch);
        }
    }
}

TFI_TYPED(attention_f32_f32, attention, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(attention_f32_bf16, attention, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(attention_bf16_f32, attention, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(attention_bf16_bf16, attention, TFI_BF16, TFI_F32, TFI_BF16)

tfi_host_fn tfi_ref_attention(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{attention_f32_f32, attention_f32_bf16}, {attention_bf16_f32, attention_bf16_bf16}};
    return table[t.x][t.y];
}
