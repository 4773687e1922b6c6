/* What processing logits and drawing from them share: floats in an order of integers, the reference's exponential bit for bit,
 * sums that do not depend on the order of their terms, walks over rows, and Philox.
 *
 * Weights exp(x - max) are at most 1 and are summed as integers in units of 2^-40: exact from there on, so that any order and
 * any split over threads gives the same sum. 2^18 of them fit with room to spare. */
#ifndef TFI_KERNELS_DRAW_CUH
#define TFI_KERNELS_DRAW_CUH

#include <math_constants.h>

#include "reduce.cuh"
#include "types.cuh"

enum { UNROLLED = 4 };

/* ---- floats in order ---- */

/* Bigger for bigger numbers, above 0 for all but NaN; -0 is 0. */
__device__ inline uint32_t order_of(float v)
{
    const uint32_t bits = __float_as_uint(v + 0.0f);
    return bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u);
}

__device__ inline float number_of(uint32_t order)
{
    return __uint_as_float(order ^ (order >> 31 ? 0x80000000u : 0xffffffffu));
}

/* Of equal scores, the one with the lower index is the better, or the one with the higher. */
__device__ inline uint64_t low_first(float score, uint32_t index)
{
    return (uint64_t)order_of(score) << 32 | (uint32_t)~index;
}

__device__ inline uint64_t high_first(float score, uint32_t index)
{
    return (uint64_t)order_of(score) << 32 | index;
}

__device__ inline float score_of(uint64_t key)
{
    return number_of((uint32_t)(key >> 32));
}

__device__ inline uint32_t index_of(uint64_t low_first_key)
{
    return ~(uint32_t)low_first_key;
}

/* NaN or +infinity */
__device__ inline bool is_invalid(float v)
{
    return !(v < CUDART_INF_F);
}

/* ---- exponentials and their sums ---- */

/* exp(v) for v <= 0, in the arithmetic of src/backend/ref/softmax.c: none of its products may be fused with a sum. */
__device__ inline float exp_of(float v)
{
    const float x = v < -88 ? -88 : v; /* whose power of 2 comes out as 0 */
    const float shifted = __fadd_rn(__fmul_rn(x, 1.44269504f), 12582912.0f), k = shifted - 12582912.0f;
    const float r = __fsub_rn(__fsub_rn(x, __fmul_rn(k, 0.693359375f)), __fmul_rn(k, -2.12194440e-4f));
    float p = 1.9875691500e-4f;

    p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
    p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
    p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
    p = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1);
    return __fmul_rn(p, __uint_as_float((__float_as_uint(shifted) + 127) << 23));
}

__device__ inline uint64_t weight_of(float score, float max)
{
    return __float2ull_rn(exp_of(score - max) * 0x1p40f);
}

__device__ inline double number_of_sum(uint64_t sum)
{
    return (double)sum * 0x1p-40;
}

__device__ inline uint64_t warp_add(uint64_t v)
{
#if __CUDA_ARCH__ >= 800
    /* In pieces of 27 bits: 32 of them have no carry. */
    const uint32_t piece = (1u << 27) - 1, all = 0xffffffffu;
    return __reduce_add_sync(all, (uint32_t)v & piece) + ((uint64_t)__reduce_add_sync(all, (uint32_t)(v >> 27) & piece) << 27) +
           ((uint64_t)__reduce_add_sync(all, (uint32_t)(v >> 54)) << 54);
#else
#pragma unroll
    for (int i = WARP / 2; i > 0; i /= 2) v += __shfl_xor_sync(0xffffffffu, v, i);
    return v;
#endif
}

__device__ inline uint64_t warp_most(uint64_t v)
{
#if __CUDA_ARCH__ >= 800
    const uint32_t high = __reduce_max_sync(0xffffffffu, (uint32_t)(v >> 32));
    const uint32_t low = __reduce_max_sync(0xffffffffu, (uint32_t)(v >> 32) == high ? (uint32_t)v : 0);
    return (uint64_t)high << 32 | low;
#else
#pragma unroll
    for (int i = WARP / 2; i > 0; i /= 2) v = max(v, (uint64_t)__shfl_xor_sync(0xffffffffu, v, i));
    return v;
#endif
}

/* ---- rows ---- */

/* all(i, x[i] to x[i + 3]) and one(i, x[i]) where that would not be aligned (V of GPT-2 is odd), for all numbers of a row,
 * spread over the block: always the same ones by a thread, and ascending. UNROLL loads of a thread are under way, with as many
 * copies of the code, which has to be read, too: few where much is done with a number. */
template <int UNROLL, typename All, typename One>
__device__ inline void for_vectors(const float *x, int64_t n, All all, One one)
{
    const uint32_t odd = (uint32_t)((uintptr_t)x / sizeof *x % 4), count = (uint32_t)n;
    const uint32_t first = min((4 - odd) % 4, count), vectors = (count - first) / 4;
    const uint32_t rest = first + 4 * vectors + threadIdx.x;
    const float4 *at = (const float4 *)(x + first);

    if (threadIdx.x < first) one(threadIdx.x, x[threadIdx.x]);
    for (uint32_t i = threadIdx.x; i < vectors; i += UNROLL * blockDim.x) {
        float4 v[UNROLL];
#pragma unroll
        for (int k = 0; k < UNROLL; k++)
            if (i + k * blockDim.x < vectors) v[k] = at[i + k * blockDim.x];
#pragma unroll
        for (int k = 0; k < UNROLL; k++)
            if (i + k * blockDim.x < vectors) all(first + 4 * (i + k * blockDim.x), v[k]);
    }
    if (rest < count) one(rest, x[rest]);
}

/* visit(i, x[i]) for all i < n */
template <int UNROLL = UNROLLED, typename Visit>
__device__ inline void for_row(const float *x, int64_t n, Visit visit)
{
    const auto all = [&](uint32_t i, float4 v) {
        visit(i, v.x);
        visit(i + 1, v.y);
        visit(i + 2, v.z);
        visit(i + 3, v.w);
    };
    for_vectors<UNROLL>(x, n, all, visit);
}

/* y[i] = change(x[i]) */
template <typename Change>
__device__ inline void copy_row(const float *x, float *y, int64_t n, Change change)
{
    const bool alike = ((uintptr_t)x - (uintptr_t)y) % sizeof(float4) == 0;
    const auto one = [&](uint32_t i, float v) { y[i] = change(v); };
    const auto all = [&](uint32_t i, float4 v) {
        const float4 changed = make_float4(change(v.x), change(v.y), change(v.z), change(v.w));
        *(float4 *)(y + i) = changed;
    };

    if (alike) for_vectors<UNROLLED>(x, n, all, one);
    else for_row(x, n, one);
}

/* ---- requests ---- */

/* To shared memory: most is looked at one after the other. */
__device__ inline void copy_settings(const tfi_sampling *from, tfi_sampling *to)
{
    for (unsigned i = threadIdx.x; i < sizeof *from / sizeof(uint32_t); i += blockDim.x)
        ((uint32_t *)to)[i] = ((const uint32_t *)from)[i];
    __syncthreads();
}

/* ---- random numbers ---- */

/* What tfi_uniform() of src/backend/ref/process.h gives. */
__device__ inline double uniform_of(uint64_t seed, uint32_t step, uint32_t index, uint32_t use)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32), c0 = step, c1 = index, c2 = use, c3 = 0;

#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t a_high = __umulhi(0xD2511F53u, c0), a_low = 0xD2511F53u * c0;
        const uint32_t b_high = __umulhi(0xCD9E8D57u, c2), b_low = 0xCD9E8D57u * c2;
        c0 = b_high ^ c1 ^ k0;
        c1 = b_low;
        c2 = a_high ^ c3 ^ k1;
        c3 = a_low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return ((double)(c0 >> 5) * 67108864.0 + (double)(c1 >> 6)) * 0x1p-53;
}

#endif
