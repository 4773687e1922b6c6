/* NORM, vectorised; meaning: backend/ref/norm.c.
 *
 * Shapes    any R and E; x, residual and y F32 or BF16, gain and bias F32.
 * Method    LAYER: one row after the other; three passes over it (mean, variance, output), of which the second and third find
 * it in the first-level cache. The second pass also sums the differences themselves: what the first left in the mean by
 * rounding is taken out again, so a mean far from 0 costs no accuracy (Chan, Golub, LeVeque 1983). RMS: two passes, the squares
 * and the output. Floor     reads x and residual, writes y: memory bound. */

/* z = x + residual */
TFI_INLINE vec norm_z(const tfi_norm_args *a, tfi_op_types t, int64_t at, int64_t n)
{
    const vec z = load_n(a->x, t.x, at, n);
    if (!a->residual) return z;
    return z + load_n(a->residual, t.residual, at, n);
}

TFI_INLINE void layer_norm_step(const tfi_norm_args *a, tfi_op_types t, int64_t row, int64_t i, int64_t n, vec mean,
                                vec correction, vec factor)
{
    const vec y = (norm_z(a, t, row + i, n) - mean - correction) * factor;
    store_n(a->y, t.y, row + i, vec_fma(y, load_n(a->gain, TFI_F32, i, n), load_n(a->bias, TFI_F32, i, n)), n);
}

TFI_INLINE void layer_norm_row(const tfi_norm_args *a, tfi_op_types t, int64_t row)
{
    const int64_t E = a->E, whole = E - E % VEC;
    const float share = 1 / (float)E;
    vec even = vec_set(0), odd = vec_set(0), rest = vec_set(0); /* two chains of additions hide their latency */
    int64_t i;

    for (i = 0; i + 2 * VEC <= whole; i += 2 * VEC) {
        even += norm_z(a, t, row + i, VEC);
        odd += norm_z(a, t, row + i + VEC, VEC);
    }
    for (; i < whole; i += VEC) even += norm_z(a, t, row + i, VEC);
    if (i < E) odd += norm_z(a, t, row + i, E - i);
    const vec mean = vec_set(vec_sum(even + odd) * share);

    even = odd = vec_set(0);
    for (i = 0; i < whole; i += VEC) {
        const vec difference = norm_z(a, t, row + i, VEC) - mean;
        even = vec_fma(difference, difference, even);
        rest += difference;
    }
    if (i < E) {
        const vec difference = vec_keep(norm_z(a, t, row + i, E - i) - mean, E - i, 0);
        odd = difference * difference;
        rest += difference;
    }
    const float correction = vec_sum(rest) * share;
    const float variance = vec_sum(even + odd) * share - correction * correction;
    const vec factor = vec_set(1 / __builtin_sqrtf((variance < 0 ? 0 : variance) + a->eps));

    for (i = 0; i < whole; i += VEC) layer_norm_step(a, t, row, i, VEC, mean, vec_set(correction), factor);
    if (i < E) layer_norm_step(a, t, row, i, E - i, mean, vec_set(correction), factor);
}

TFI_INLINE void rms_norm_step(const tfi_norm_args *a, tfi_op_types t, int64_t row, int64_t i, int64_t n, vec factor)
{
    store_n(a->y, t.y, row + i, norm_z(a, t, row + i, n) * factor * load_n(a->gain, TFI_F32, i, n), n);
}

TFI_INLINE void rms_norm_row(const tfi_norm_args *a, tfi_op_types t, int64_t row)
{
    const int64_t E = a->E, whole = E - E % VEC;
    vec even = vec_set(0), odd = vec_set(0);
    int64_t i;

    for (i = 0; i + 2 * VEC <= whole; i += 2 * VEC) {
        const vec z0 = norm_z(a, t, row + i, VEC), z1 = norm_z(a, t, row + i + VEC, VEC);
        even = vec_fma(z0, z0, even);
        odd = vec_fma(z1, z1, odd);
    }
    for (; i < E; i += VEC) {
        const vec z = norm_z(a, t, row + i, i < whole ? VEC : E - i);
        even = vec_fma(z, z, even);
    }
    const vec factor = vec_set(1 / __builtin_sqrtf(vec_sum(even + odd) / (float)E + a->eps));

    for (i = 0; i < whole; i += VEC) rms_norm_step(a, t, row, i, VEC, factor);
    if (i < E) rms_norm_step(a, t, row, i, E - i, factor);
}

TFI_INLINE void norm(const tfi_norm_args *args, const tfi_worker *w, tfi_op_types t)
{
    const tfi_norm_args copy = *args, *a = &copy; /* vector stores may alias args, but not this */
    int64_t begin, end;

    tfi_share(w, a->R, &begin, &end);
    if (a->norm == TFI_NORM_RMS) {
        for (int64_t r = begin; r < end; r++) rms_norm_row(a, t, r * a->E);
    } else {
        for (int64_t r = begin; r < end; r++) layer_norm_row(a, t, r * a->E);
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

static tfi_host_fn norm_fn(tfi_op_types t)
{
    static const tfi_host_fn table[2][2][2] = {
        {{norm_f32_f32_f32, norm_f32_f32_bf16}, {norm_f32_bf16_f32, norm_f32_bf16_bf16}},
        {{norm_bf16_f32_f32, norm_bf16_f32_bf16}, {norm_bf16_bf16_f32, norm_bf16_bf16_bf16}}};
    return table[t.x][t.residual][t.y];
}
