/* LOGPROB: the log-softmax of a row at its target; what it computes: src/backend/ref/logprob.c
 *
 * Shapes    x [S, V] fp32, targets [S], y [S, 1] fp32
 * Parallel  a block a row; each thread has a running maximum and a sum that is scaled when the maximum grows, so that the row
 *           is read once
 * Needs     nothing: V of GPT-2 is odd, rows are not aligned, and 4 bytes a thread of a full warp are coalesced all the same
 * Floor     4*S*V bytes; V=50257, S=64: 12.9 MB, from L2 */
#include "reduce.cuh"
#include "types.cuh"

namespace
{

enum { THREADS = 1024, UNROLL = 4 };

struct partial {
    float max, sum; /* of exp(x - max) */
};

__device__ partial merge(partial a, partial b)
{
    const float max = fmaxf(a.max, b.max);
    partial p = {max, 0};
    if (max == -INFINITY) return p;
    p.sum = a.sum * expf(a.max - max) + b.sum * expf(b.max - max);
    return p;
}

__device__ partial merge_block(partial p, partial *shared)
{
    for (int i = WARP / 2; i > 0; i /= 2) {
        const partial other = {__shfl_xor_sync(0xffffffffu, p.max, i), __shfl_xor_sync(0xffffffffu, p.sum, i)};
        p = merge(p, other);
    }
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = p;
    __syncthreads();
    p = shared[0];
    for (unsigned w = 1; w < blockDim.x / WARP; w++) p = merge(p, shared[w]);
    return p;
}

__global__ void __launch_bounds__(THREADS) logprob(tfi_logprob_args a, const tfi_cuda_live *live)
{
    begin();
    __shared__ partial shared[WARPS_MAX];
    const int64_t s = blockIdx.x;
    const float *x = a.x + s * a.V;
    partial p = {-INFINITY, 0};

    if (s >= live->rows[TFI_ROWS_SELECTED]) return;
    const int32_t target = a.targets[s];
    if (target < 0) {
        if (threadIdx.x == 0) a.y[s] = 0;
        return;
    }
    for (int64_t i = threadIdx.x; i < a.V; i += UNROLL * THREADS) {
        float v[UNROLL], max = p.max;
#pragma unroll
        for (int k = 0; k < UNROLL; k++) v[k] = i + k * THREADS < a.V ? x[i + k * THREADS] : -INFINITY;
#pragma unroll
        for (int k = 0; k < UNROLL; k++) max = fmaxf(max, v[k]);
        if (max == -INFINITY) continue;
        p.sum *= expf(p.max - max);
        p.max = max;
#pragma unroll
        for (int k = 0; k < UNROLL; k++) p.sum += expf(v[k] - max);
    }
    p = merge_block(p, shared);
    if (threadIdx.x == 0) a.y[s] = x[target] - p.max - logf(p.sum);
}

} // namespace

extern "C" tf_status tfi_cuda_logprob(const tfi_cuda_launch *l, const tfi_logprob_args *a)
{
    if (a->S == 0) return TF_STATUS_OK;
    return start(l, "LOGPROB", logprob, (unsigned)a->S, THREADS, 0, *a, l->live);
}
