/* The vector layer over AVX2 and FMA: 8 floats. The same names as vec_avx512.h; the templates know no other. */
#ifndef TFI_BACKEND_CPU_VEC_AVX2_H
#define TFI_BACKEND_CPU_VEC_AVX2_H

#include <immintrin.h>

#include "backend/rows.h"

typedef __m256 vec; /* + - * / work on it */

enum { VEC = 8, EXP2_LOW = -127 };
/* Tiles of matrix products: 12 of the 16 registers are sums, 2 + 1 hold operands */
#define TILE_ROWS 6
#define TILE_VECS 2

TFI_INLINE __m256i vec_mask(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

TFI_INLINE vec vec_set(float v)
{
    return _mm256_set1_ps(v);
}

TFI_INLINE vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

/* Lanes from n on are 0 and not read. */
TFI_INLINE vec vec_load_part(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, vec_mask(n));
}

TFI_INLINE void vec_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}

TFI_INLINE void vec_store_part(float *p, vec v, int64_t n)
{
    _mm256_maskstore_ps(p, vec_mask(n), v);
}

TFI_INLINE vec vec_from_bf16(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* Rounded as tfi_f32_to_bf16() does. */
TFI_INLINE __m128i vec_to_bf16(vec v)
{
    const __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i kept = _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
}

TFI_INLINE vec vec_load_bf16(const uint16_t *p)
{
    return vec_from_bf16(_mm_loadu_si128((const __m128i *)p));
}

TFI_INLINE vec vec_load_bf16_part(const uint16_t *p, int64_t n)
{
    uint16_t part[VEC] = {0}; /* AVX2 has no masks for 16-bit elements */
    memcpy(part, p, (size_t)n * sizeof *p);
    return vec_load_bf16(part);
}

TFI_INLINE void vec_store_bf16(uint16_t *p, vec v)
{
    _mm_storeu_si128((__m128i *)p, vec_to_bf16(v));
}

TFI_INLINE void vec_store_bf16_part(uint16_t *p, vec v, int64_t n)
{
    uint16_t part[VEC];
    vec_store_bf16(part, v);
    memcpy(p, part, (size_t)n * sizeof *p);
}

/* a * b + c */
TFI_INLINE vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* A NaN in v wins, one in m is lost. */
TFI_INLINE vec vec_max(vec m, vec v)
{
    return _mm256_max_ps(m, v);
}

/* Once NaN, m stays NaN. */
TFI_INLINE vec vec_max_sticky(vec m, vec v)
{
    return _mm256_blendv_ps(_mm256_max_ps(m, v), m, _mm256_cmp_ps(m, m, _CMP_UNORD_Q));
}

/* v where lane < n, else fill. */
TFI_INLINE vec vec_keep(vec v, int64_t n, float fill)
{
    return _mm256_blendv_ps(_mm256_set1_ps(fill), v, _mm256_castsi256_ps(vec_mask(n)));
}

TFI_INLINE float vec_sum(vec v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

TFI_INLINE float vec_max_lane(vec v)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* v times 2^n for whole n in [EXP2_LOW, 0]; EXP2_LOW gives 0. */
TFI_INLINE vec vec_scale2(vec v, vec n)
{
    const __m256i exponent = _mm256_cvtps_epi32(n);
    const __m256i factor = _mm256_slli_epi32(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)), 23);
    return v * _mm256_castsi256_ps(factor);
}

TFI_INLINE vec vec_round(vec v)
{
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Rows to columns, in place. */
TFI_INLINE void vec_transpose(vec r[VEC])
{
    vec t[VEC];

    TFI_UNROLL
    for (int i = 0; i < VEC; i += 4) { /* 4x4 blocks inside the 128-bit lanes */
        const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(r[i], r[i + 1])),
                      b = _mm256_castps_pd(_mm256_unpackhi_ps(r[i], r[i + 1]));
        const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(r[i + 2], r[i + 3])),
                      d = _mm256_castps_pd(_mm256_unpackhi_ps(r[i + 2], r[i + 3]));
        t[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        t[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        t[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        t[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    TFI_UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x20);
        r[4 + i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x31);
    }
}

#endif
