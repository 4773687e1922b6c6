/* L2NORM, vectorised; meaning: backend/ref/l2norm.c. Two passes over a row, the second from the first-level cache. */

TFI_INLINE void l2norm_row(const tfi_l2norm_args *a, tfi_op_types t, int64_t row)
{
    const int64_t E = a->E, whole = E - E % VEC;
    vec sum = vec_set(0);

    for (int64_t i = 0; i < whole; i += VEC) {
        const vec x = load_n(a->x, t.x, row + i, VEC);
        sum = vec_fma(x, x, sum);
    }
    if (whole < E) {
        const vec x = load_n(a->x, t.x, row + whole, E - whole);
        sum = vec_fma(x, x, sum);
    }
    const float length = __builtin_sqrtf(vec_sum(sum));
    const vec factor = vec_set(1 / (length < a->eps ? a->eps : length));
    for (int64_t i = 0; i < whole; i += VEC) store_n(a->y, t.y, row + i, load_n(a->x, t.x, row + i, VEC) * factor, VEC);
    if (whole < E) store_n(a->y, t.y, row + whole, load_n(a->x, t.x, row + whole, E - whole) * factor, E - whole);
}

TFI_INLINE void l2norm(const tfi_l2norm_args *args, const tfi_worker *w, tfi_op_types t)
{
    const tfi_l2norm_args copy = *args, *a = &copy; /* vector stores may alias args, but not this */
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    for (int64_t r = begin; r < end; r++) l2norm_row(a, t, r * a->E);
}

TFI_TYPED(l2norm_f32_f32, l2norm, TFI_F32, TFI_F32, TFI_F32)
TFI_TYPED(l2norm_f32_bf16, l2norm, TFI_F32, TFI_F32, TFI_BF16)
TFI_TYPED(l2norm_bf16_f32, l2norm, TFI_BF16, TFI_F32, TFI_F32)
TFI_TYPED(l2norm_bf16_bf16, l2norm, TFI_BF16, TFI_F32, TFI_BF16)

static tfi_host_fn l2norm_fn(tfi_op_types t)
{
    static const tfi_host_fn table[2][2] = {{l2norm_f32_f32, l2norm_f32_bf16}, {l2norm_bf16_f32, l2norm_bf16_bf16}};
    return table[t.x][t.y];
}
