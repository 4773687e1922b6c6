/* On top of a vector layer: loads and stores of either operand type, and 2^x. Included by tier_tmpl.h alone. */

/* n elements from element `at` on; lanes from n on are 0. n is VEC in all but the last step of a row. */
TFI_INLINE vec load_n(const void *p, tfi_dtype t, int64_t at, int64_t n)
{
    p = tfi_at(p, t, at);
    if (t == TFI_BF16) return n == VEC ? vec_load_bf16(p) : vec_load_bf16_part(p, n);
    return n == VEC ? vec_load(p) : vec_load_part(p, n);
}

TFI_INLINE void store_n(void *p, tfi_dtype t, int64_t at, vec v, int64_t n)
{
    p = tfi_at_out(p, t, at);
    if (t == TFI_BF16) {
        if (n == VEC) {
            vec_store_bf16(p, v);
        } else {
            vec_store_bf16_part(p, v, n);
        }
    } else if (n == VEC) {
        vec_store(p, v);
    } else {
        vec_store_part(p, v, n);
    }
}

/* 2^x for x <= 0: 2^n with whole n times 2^f with f in [-1/2, 1/2], of which this is the Taylor polynomial in f ln 2 to the 7th
 * power (remainder below 6e-9). Relative error below 1.2e-7; a NaN stays. */
TFI_INLINE vec exp2_vec(vec x)
{
    x = vec_max(vec_set(EXP2_LOW), x);
    const vec n = vec_round(x), f = x - n;
    vec p = vec_set(1.5252734e-5f);
    p = vec_fma(p, f, vec_set(1.5403530e-4f));
    p = vec_fma(p, f, vec_set(1.3333558e-3f));
    p = vec_fma(p, f, vec_set(9.6181291e-3f));
    p = vec_fma(p, f, vec_set(5.5504109e-2f));
    p = vec_fma(p, f, vec_set(2.4022651e-1f));
    p = vec_fma(p, f, vec_set(6.9314718e-1f));
    p = vec_fma(p, f, vec_set(1));
    return vec_scale2(p, n);
}
