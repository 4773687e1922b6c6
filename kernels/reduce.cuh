/* Sums and maxima over a warp and over a block, and the search for a row's sequence. Every thread gets the result; the order of
 * the additions is fixed, so equal inputs give equal bits. */
#ifndef TFI_KERNELS_REDUCE_CUH
#define TFI_KERNELS_REDUCE_CUH

#include <stdint.h>

enum { WARP = 32, WARPS_MAX = 32 };

__device__ inline float warp_sum(float v)
{
#pragma unroll
    for (int i = WARP / 2; i > 0; i /= 2) v += __shfl_xor_sync(0xffffffffu, v, i);
    return v;
}

__device__ inline float warp_max(float v)
{
#pragma unroll
    for (int i = WARP / 2; i > 0; i /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, i));
    return v;
}

/* shared: [WARPS_MAX], not that of the block's last reduction. */
__device__ inline float2 block_sum(float2 v, float2 *shared)
{
    float2 total = make_float2(0, 0);

    v.x = warp_sum(v.x);
    v.y = warp_sum(v.y);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = v;
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / WARP; w++) {
        total.x += shared[w].x;
        total.y += shared[w].y;
    }
    return total;
}

/* The last b in [0, n) with key(b) <= at, n > 0. Keys never fall and key(0) <= at. All lanes of a warp ask together. */
template <typename Key>
__device__ inline int find_last(int n, int64_t at, Key key)
{
    const int lane = threadIdx.x % WARP;
    int low = 0;

    while (n > 1) {
        const int step = (n + WARP - 1) / WARP;
        const bool below = lane * step < n && key(low + lane * step) <= at;
        const int skipped = (__popc(__ballot_sync(0xffffffffu, below)) - 1) * step;
        low += skipped;
        n = min(step, n - skipped);
    }
    return low;
}

#endif
