/* The vector layer over AVX-512 (F, BW, DQ, VL): 16 floats. The same names as vec_avx2.h; the templates know no other. */
#ifndef TFI_BACKEND_CPU_VEC_AVX512_H
#define TFI_BACKEND_CPU_VEC_AVX512_H

#include <immintrin.h>

#include "backend/rows.h"

typedef __m512 vec; /* + - * / work on it */

enum { VEC = 16, EXP2_LOW = -200 };
/* Tiles of matrix products: 24 of the 32 registers are sums, 4 + 1 hold operands */
#define TILE_ROWS 6
#define TILE_VECS 4

TFI_INLINE __mmask16 vec_mask(int64_t n)
{
    return (__mmask16)((1u << n) - 1);
}

TFI_INLINE vec vec_set(float v)
{
    return _mm512_set1_ps(v);
}

TFI_INLINE vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

/* Lanes from n on are 0 and not read. */
TFI_INLINE vec vec_load_part(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(vec_mask(n), p);
}

TFI_INLINE void vec_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}

TFI_INLINE void vec_store_part(float *p, vec v, int64_t n)
{
    _mm512_mask_storeu_ps(p, vec_mask(n), v);
}

TFI_INLINE vec vec_from_bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* Rounded as tfi_f32_to_bf16() does. */
TFI_INLINE __m256i vec_to_bf16(vec v)
{
    const __m512i bits = _mm512_castps_si512(v), high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40)));
}

TFI_INLINE vec vec_load_bf16(const uint16_t *p)
{
    return vec_from_bf16(_mm256_loadu_si256((const __m256i *)p));
}

TFI_INLINE vec vec_load_bf16_part(const uint16_t *p, int64_t n)
{
    return vec_from_bf16(_mm256_maskz_loadu_epi16(vec_mask(n), p));
}

TFI_INLINE void vec_store_bf16(uint16_t *p, vec v)
{
    _mm256_storeu_si256((__m256i *)p, vec_to_bf16(v));
}

TFI_INLINE void vec_store_bf16_part(uint16_t *p, vec v, int64_t n)
{
    _mm256_mask_storeu_epi16(p, vec_mask(n), vec_to_bf16(v));
}

/* a * b + c */
TFI_INLINE vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* A NaN in v wins, one in m is lost. */
TFI_INLINE vec vec_max(vec m, vec v)
{
    return _mm512_max_ps(m, v);
}

/* Once NaN, m stays NaN. */
TFI_INLINE vec vec_max_sticky(vec m, vec v)
{
    return _mm512_mask_mov_ps(_mm512_max_ps(m, v), _mm512_cmp_ps_mask(m, m, _CMP_UNORD_Q), m);
}

/* v where lane < n, else fill. */
TFI_INLINE vec vec_keep(vec v, int64_t n, float fill)
{
    return _mm512_mask_mov_ps(_mm512_set1_ps(fill), vec_mask(n), v);
}

TFI_INLINE float vec_sum(vec v)
{
    return _mm512_reduce_add_ps(v);
}

TFI_INLINE float vec_max_lane(vec v)
{
    return _mm512_reduce_max_ps(v);
}

/* v times 2^n for whole n in [EXP2_LOW, 0]; fades out to 0. */
TFI_INLINE vec vec_scale2(vec v, vec n)
{
    return _mm512_scalef_ps(v, n);
}

TFI_INLINE vec vec_round(vec v)
{
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Four of a's 128-bit lanes with four of b's. */
TFI_INLINE void vec_swap_lanes(vec *out_low, vec *out_high, vec a, vec b)
{
    *out_low = _mm512_shuffle_f32x4(a, b, 0x88);
    *out_high = _mm512_shuffle_f32x4(a, b, 0xdd);
}

/* Rows to columns, in place. */
TFI_INLINE void vec_transpose(vec r[VEC])
{
    vec t[VEC];

    TFI_UNROLL
    for (int i = 0; i < VEC; i += 4) { /* 4x4 blocks inside the 128-bit lanes */
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[i], r[i + 1])),
                      b = _mm512_castps_pd(_mm512_unpackhi_ps(r[i], r[i + 1]));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r[i + 2], r[i + 3])),
                      d = _mm512_castps_pd(_mm512_unpackhi_ps(r[i + 2], r[i + 3]));
        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    TFI_UNROLL
    for (int i = 0; i < 4; i++) { /* then the lanes: t[4k + i] holds columns i, 4 + i, 8 + i, 12 + i of rows 4k .. 4k + 3 */
        vec low01, high01, low23, high23;
        vec_swap_lanes(&low01, &high01, t[i], t[4 + i]);
        vec_swap_lanes(&low23, &high23, t[8 + i], t[12 + i]);
        vec_swap_lanes(&r[i], &r[8 + i], low01, low23);
        vec_swap_lanes(&r[4 + i], &r[12 + i], high01, high23);
    }
}

#endif
