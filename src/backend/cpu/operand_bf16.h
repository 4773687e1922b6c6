/* What the matrix products of attention read: 32-bit elements, here two bf16 that follow each other along the depth of the
 * product, summed in fp32 by one instruction (AVX512_BF16). The same names as operand_f32.h. */

enum { PER_ELEMENT = 2 }; /* values along the depth of a product in one element */

/* a.first * b.first + a.second * b.second + c, elements a and b, fp32 c */
TFI_INLINE vec operand_fma(vec a, vec b, vec c)
{
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

TFI_INLINE __mmask32 operand_mask(int64_t n)
{
    return n >= 2 * VEC ? 0xffffffffu : (1u << n) - 1;
}

/* VEC elements along a row: n values from `at` on, then zeros. */
TFI_INLINE vec operand_along(const void *p, tfi_dtype t, int64_t at, int64_t n)
{
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(operand_mask(n), tfi_at(p, t, at)));
}

/* n values from `at` on as bf16, then zeros; none are read if n is 0. */
TFI_INLINE __m256i operand_half(const void *p, tfi_dtype t, int64_t at, int64_t n)
{
    if (t == TFI_BF16) return _mm256_maskz_loadu_epi16(vec_mask(n), tfi_at(p, t, at));
    return (__m256i)_mm512_cvtneps_pbh(vec_load_part(tfi_at(p, t, at), n));
}

/* VEC elements across rows: n columns from `at` on, of `rows` >= 1 rows that lie `stride` values apart; a second row that is
 * not there is 0. */
TFI_INLINE vec operand_across(const void *p, tfi_dtype t, int64_t at, int64_t stride, int64_t rows, int64_t n)
{
    const __m256i first = operand_half(p, t, at, n);
    const __m256i second = operand_half(p, t, rows > 1 ? at + stride : at, rows > 1 ? n : 0);
    return _mm512_castsi512_ps(
        _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16)));
}

/* Values i to i + VEC of a row of elements. */
TFI_INLINE void operand_store(float *row, int64_t i, vec v)
{
    _mm256_storeu_si256((__m256i *)((uint16_t *)row + i), (__m256i)_mm512_cvtneps_pbh(v));
}
