/* What processing logits and drawing from them share: floats in an order of integers, the reference's exponential bit for bit,
 * sums that do not depend on the order of their terms, Philox, and the search for the best of many.
 *
 * Weights exp(x - max) are at most 1 and are summed as integers in units of 2^-40: exact from there on, so that any order and
 * any split over threads gives the same sum. 2^18 of them fit with room to spare. */
#ifndef TFI_KERNELS_DRAW_CUH
#define TFI_KERNELS_DRAW_CUH

#include <math_constants.h>

#include "reduce.cuh"
#include "types.cuh"

enum { DRAW_THREADS = 1024, UNROLL = 4, BINS = 2048, BINS_LOG2 = 11 };

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
#pragma unroll
    for (int i = WARP / 2; i > 0; i /= 2) v += __shfl_xor_sync(0xffffffffu, v, i);
    return v;
}

__device__ inline uint64_t warp_most(uint64_t v)
{
#pragma unroll
    for (int i = WARP / 2; i > 0; i /= 2) v = max(v, (uint64_t)__shfl_xor_sync(0xffffffffu, v, i));
    return v;
}

/* shared: [WARPS_MAX]; free again when the function returns. */
__device__ inline uint64_t block_add(uint64_t v, uint64_t *shared)
{
    v = warp_add(v);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = v;
    __syncthreads();
    v = warp_add(threadIdx.x % WARP < blockDim.x / WARP ? shared[threadIdx.x % WARP] : 0);
    __syncthreads();
    return v;
}

__device__ inline uint64_t block_most(uint64_t v, uint64_t *shared)
{
    v = warp_most(v);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = v;
    __syncthreads();
    v = warp_most(threadIdx.x % WARP < blockDim.x / WARP ? shared[threadIdx.x % WARP] : 0);
    __syncthreads();
    return v;
}

/* visit(i, x[i]) for all i < n, spread over the block, UNROLL times 16 bytes of a thread under way; ascending for each thread.
 */
template <typename Visit>
__device__ inline void for_row(const float *x, int64_t n, Visit visit)
{
    const uint32_t odd = (uint32_t)((uintptr_t)x / sizeof *x % 4); /* x is not 16-byte aligned: V of GPT-2 is odd */
    const uint32_t count = (uint32_t)n, first = min((4 - odd) % 4, count), vectors = (count - first) / 4;
    const uint32_t rest = first + 4 * vectors + threadIdx.x;
    const float4 *at = (const float4 *)(x + first);

    if (threadIdx.x < first) visit(threadIdx.x, x[threadIdx.x]);
    for (uint32_t i = threadIdx.x; i < vectors; i += UNROLL * blockDim.x) {
        float4 v[UNROLL];
#pragma unroll
        for (uint32_t k = 0; k < UNROLL; k++)
            if (i + k * blockDim.x < vectors) v[k] = at[i + k * blockDim.x];
#pragma unroll
        for (uint32_t k = 0; k < UNROLL; k++) {
            const uint32_t index = first + 4 * (i + k * blockDim.x);
            if (i + k * blockDim.x >= vectors) break;
            visit(index, v[k].x);
            visit(index + 1, v[k].y);
            visit(index + 2, v[k].z);
            visit(index + 3, v[k].w);
        }
    }
    if (rest < count) visit(rest, x[rest]);
}

/* What a row's logits have in common. The best is that of lowest index; a row without numbers above -infinity has none. */
struct row_facts {
    bool invalid;
    uint64_t best; /* low_first() */
};

__device__ inline row_facts facts_of(const float *x, int64_t n, uint64_t *shared)
{
    row_facts f = {false, 0};

    for_row(x, n, [&](uint32_t i, float v) {
        f.invalid |= is_invalid(v);
        f.best = max(f.best, low_first(v, i));
    });
    f.invalid = __syncthreads_or(f.invalid);
    f.best = block_most(f.best, shared);
    return f;
}

__device__ inline bool row_invalid(const float *x, int64_t n)
{
    bool invalid = false;

    for_row(x, n, [&](uint32_t, float v) { invalid |= is_invalid(v); });
    return __syncthreads_or(invalid);
}

__device__ inline uint64_t sum_exp(const float *x, int64_t n, float max, uint64_t *shared)
{
    uint64_t sum = 0;

    for_row(x, n, [&](uint32_t, float v) { sum += weight_of(v, max); });
    return block_add(sum, shared);
}

/* The logarithm of the sum of exp(x[i]); NaN where the row is invalid. */
__device__ inline double log_sum_exp(const float *x, int64_t n, uint64_t *shared)
{
    const row_facts f = facts_of(x, n, shared);
    const float max = score_of(f.best);
    if (f.invalid) return CUDART_NAN;
    return (double)max + log(number_of_sum(sum_exp(x, n, max, shared)));
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

/* ---- the best of many ---- */

/* Shared memory of a selection. */
struct bins {
    uint64_t sums[BINS];
    uint32_t counts[BINS];
    uint64_t warp_sums[WARPS_MAX];
    uint32_t warp_counts[WARPS_MAX];
    uint64_t sum_before;
    uint32_t count_before, count, bin;
};

/* How many, and how much weight, are to be taken, from the largest key down. */
struct quota {
    uint64_t count, sum;
};

__device__ inline bool is_met(quota q, uint64_t count, uint64_t sum)
{
    return count >= q.count && sum >= q.sum;
}

/* The bin in which the quota is met when bins are taken from the last one down; BINS if it never is. */
__device__ inline void find_bin(bins *b, quota q)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint32_t counts[2], count = 0;
    uint64_t sums[2], sum = 0;

    for (int k = 0; k < 2; k++) {
        const int bin = BINS - 1 - (2 * (int)threadIdx.x + k);
        counts[k] = b->counts[bin];
        sums[k] = b->sums[bin];
        count += counts[k];
        sum += sums[k];
    }
    const uint32_t own_count = count;
    const uint64_t own_sum = sum;
    for (int i = 1; i < WARP; i *= 2) {
        const uint32_t c = __shfl_up_sync(0xffffffffu, count, i);
        const uint64_t s = __shfl_up_sync(0xffffffffu, sum, i);
        if (lane >= i) {
            count += c;
            sum += s;
        }
    }
    if (lane == WARP - 1) {
        b->warp_counts[warp] = count;
        b->warp_sums[warp] = sum;
    }
    if (threadIdx.x == 0) b->bin = BINS;
    __syncthreads();
    for (int w = 0; w < warp; w++) {
        count += b->warp_counts[w];
        sum += b->warp_sums[w];
    }
    count -= own_count;
    sum -= own_sum;
    for (int k = 0; k < 2; k++) {
        const bool before = is_met(q, count, sum);
        if (!before && is_met(q, count + counts[k], sum + sums[k])) {
            b->bin = BINS - 1 - (2 * threadIdx.x + k);
            b->count_before = count;
            b->sum_before = sum;
            b->count = counts[k];
        }
        count += counts[k];
        sum += sums[k];
    }
    __syncthreads();
}

/* Takes keys from the largest down until the quota is met, and returns the last one taken; or `low` if all of them do not meet
 * it. each(offer) calls offer(key, weight) for all the block's keys, the same in every pass; those outside [low, high] do not
 * count. A pass narrows the range to one of BINS bins: two or three do for floats as they come. */
template <typename Each>
__device__ inline uint64_t select_last(bins *b, uint64_t low, uint64_t high, quota q, Each each)
{
    while (true) {
        const int bits = 64 - __clzll((long long)(high - low)), shift = bits > BINS_LOG2 ? bits - BINS_LOG2 : 0;
        __syncthreads();
        for (int i = threadIdx.x; i < BINS; i += DRAW_THREADS) {
            b->counts[i] = 0;
            b->sums[i] = 0;
        }
        __syncthreads();
        each([&](uint64_t key, uint64_t weight) {
            if (key < low || key > high) return;
            const int bin = (int)((key - low) >> shift);
            atomicAdd(&b->counts[bin], 1u);
            if (weight > 0) atomicAdd((unsigned long long *)&b->sums[bin], (unsigned long long)weight);
        });
        __syncthreads();
        find_bin(b, q);
        if (b->bin == BINS) return low;
        low += (uint64_t)b->bin << shift;
        if (shift == 0 || b->count == 1) return low;
        high = min(high, low + ((uint64_t)1 << shift) - 1);
        q.count -= min(q.count, (uint64_t)b->count_before);
        q.sum -= min(q.sum, b->sum_before);
    }
}

/* A number that at least `count` of the keys reach of which each thread has given its largest: so only few below the best
 * `count` do. count <= DRAW_THREADS. */
__device__ inline uint64_t reached_by(bins *b, uint64_t largest, uint64_t count)
{
    return select_last(b, 0, ~(uint64_t)0, {count, 0}, [&](auto offer) { offer(largest, 0); });
}

#endif
