/* POOL, vectorised; meaning: backend/ref/pool.c. A vector of columns goes down the sequence's rows. */

TFI_INLINE vec pooled(const tfi_pool_args *a, tfi_op_types t, int pooling, int64_t begin, int64_t end, int64_t i, int64_t n)
{
    const int64_t first = begin + a->skip;
    const float all = (float)(end - begin), skip = (float)a->skip, count = all - skip;
    vec max = vec_set(-__builtin_inff()), sum = vec_set(0);

    switch (pooling) {
    case TFI_POOL_CLS:
        return load_n(a->x, t.x, first * a->E + i, n);
    case TFI_POOL_LAST:
        return load_n(a->x, t.x, (end - 1) * a->E + i, n);
    case TFI_POOL_MAX:
        for (int64_t r = first; r < end; r++) max = vec_max_sticky(max, load_n(a->x, t.x, r * a->E + i, n));
        return max;
    case TFI_POOL_WEIGHTED:
        for (int64_t r = first; r < end; r++)
            sum = vec_fma(load_n(a->x, t.x, r * a->E + i, n), vec_set((float)(r - begin + 1)), sum);
        return sum / vec_set((all * (all + 1) - skip * (skip + 1)) / 2);
    default:
        for (int64_t r = first; r < end; r++) sum += load_n(a->x, t.x, r * a->E + i, n);
        return sum / vec_set(pooling == TFI_POOL_MEAN ? count : __builtin_sqrtf(count));
    }
}

TFI_INLINE void pool(const tfi_pool_args *args, const tfi_worker *w, tfi_op_types t)
{
    const tfi_pool_args copy = *args, *a = &copy; /* vector stores may alias args, but not this */
    const int64_t whole = a->E - a->E % VEC;
    int64_t first, last, at;
    int count = 0;

    for (int32_t p = a->pooling; p; p >>= 3) count++;
    tfi_share(w, a->B, &first, &last);
    at = first * count * a->E;
    for (int64_t b = first; b < last; b++) {
        const int64_t begin = a->offsets[b], end = a->offsets[b + 1];
        for (int32_t p = a->pooling; p; p >>= 3) {
            const int pooling = p & 7;
            for (int64_t i = 0; i < whole; i += VEC) store_n(a->y, t.y, at + i, pooled(a, t, pooling, begin, end, i, VEC), VEC);
            if (whole < a->E) {
                const int64_t n = a->E - whole;
                store_n(a->y, t.y, at + whole, pooled(a, t, pooling, begin, end, whole, n), n);
            }
            at += a->E;
        }
    }
}

TFI_TYPED(pool_f32_f32, pool, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(pool_f32_bf16, pool, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(pool_bf16_f32, pool, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(pool_bf16_bf16, pool, TFI_BF16, TFI_F32, TFI_BF16)

static tfi_host_fn pool_fn(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{pool_f32_f32, pool_f32_bf16}, {pool_bf16_f32, pool_bf16_bf16}};
    return table[t.x][t.y];
}
