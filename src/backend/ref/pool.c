/* POOL, plain C: one vector a sequence (none is empty) for each pooling asked for, sums in double. */
#include <math.h>

#include "backend/ref/ref.h"
#include "backend/rows.h"

/* Column i of x pooled over rows [begin + skip, end) of the sequence [begin, end). */
TFI_INLINE double pooled(const tfi_pool_args *a, tfi_op_types t, int pooling, int64_t begin, int64_t end, int64_t i)
{
    const double all = (double)(end - begin), skip = (double)a->skip, n = all - skip;
    double max = -INFINITY, sum = 0;

    if (pooling == TFI_POOL_CLS) return (double)tfi_get(a->x, t.x, (begin + a->skip) * a->E + i);
    if (pooling == TFI_POOL_LAST) return (double)tfi_get(a->x, t.x, (end - 1) * a->E + i);
    for (int64_t r = begin + a->skip; r < end; r++) {
        const double v = (double)tfi_get(a->x, t.x, r * a->E + i);
        if (v > max || isnan(v)) max = v; /* and a NaN stays */
        sum += pooling == TFI_POOL_WEIGHTED ? v * (double)(r - begin + 1) : v;
    }
    switch (pooling) {
    case TFI_POOL_MAX:
        return max;
    case TFI_POOL_MEAN:
        return sum / n;
    case TFI_POOL_MEAN_SQRT:
        return sum / sqrt(n);
    default:
        return sum / ((all * (all + 1) - skip * (skip + 1)) / 2); /* TFI_POOL_WEIGHTED: the weights' sum */
    }
}

TFI_INLINE void pool(const tfi_pool_args *a, const tfi_worker *w, tfi_op_types t)
{
    int64_t begin, end, at;
    int count = 0;

    for (int32_t p = a->pooling; p; p >>= 3) count++;
    tfi_share(w, a->B, &begin, &end);
    at = begin * count * a->E;
    for (int64_t b = begin; b < end; b++) {
        for (int32_t p = a->pooling; p; p >>= 3)
            for (int64_t i = 0; i < a->E; i++)
                tfi_put(a->y, t.y, at++, (float)pooled(a, t, p & 7, a->offsets[b], a->offsets[b + 1], i));
    }
}

TFI_TYPED(pool_f32_f32, pool, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(pool_f32_bf16, pool, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(pool_bf16_f32, pool, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(pool_bf16_bf16, pool, TFI_BF16, TFI_F32, TFI_BF16)

tfi_host_fn tfi_ref_pool(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{pool_f32_f32, pool_f32_bf16}, {pool_bf16_f32, pool_bf16_bf16}};
    return table[t.x][t.y];
}
