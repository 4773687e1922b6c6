/* What the matrix products of attention read: 32-bit elements, here one fp32 each. The same names as operand_bf16.h. */

enum { PER_ELEMENT = 1 }; /* values along the depth of a product in one element */

/* a * b + c, elements a and b, fp32 c */
TFI_INLINE vec operand_fma(vec a, vec b, vec c)
{
    return vec_fma(a, b, c);
}

/* VEC elements along a row: n values from `at` on, then zeros. */
TFI_INLINE vec operand_along(const void *p, tfi_dtype t, int64_t at, int64_t n)
{
    return load_n(p, t, at, n);
}

/* VEC elements across rows: n columns from `at` on, of `rows` >= 1 rows that lie `stride` values apart. */
TFI_INLINE vec operand_across(const void *p, tfi_dtype t, int64_t at, int64_t stride, int64_t rows, int64_t n)
{
    (void)stride;
    (void)rows;
    return load_n(p, t, at, n);
}

/* Values i to i + VEC of a row of elements. */
TFI_INLINE void operand_store(float *row, int64_t i, vec v)
{
    vec_store(row + i, v);
}
