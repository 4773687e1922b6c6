/* KV_COPY: whole blocks of the store; what it computes: src/backend/ref/kv_copy.c
 *
 * Shapes    copies [count, 2], of which as many as live are made
 * Parallel  grid [count, bytes of a block / bytes of a thread block], 16 bytes a thread, 4 of these
 * Needs     nothing: the bytes of a block are a multiple of 64
 * Floor     2 * count * bytes of a block */
#include "kv.cuh"

namespace
{

enum { THREADS = 256, EACH = 4 };

__global__ void __launch_bounds__(THREADS)
    kv_copy(const int32_t *copies, char *blocks, int64_t words, const tfi_cuda_live *live)
{
    follow();
    const bool is_live = (int32_t)blockIdx.x < live->copies;
    const int64_t first = (int64_t)blockIdx.y * THREADS * EACH + threadIdx.x;
    const uint4 *from = (const uint4 *)blocks + (is_live ? copies[2 * blockIdx.x] : 0) * words;
    uint4 *to = (uint4 *)blocks + (is_live ? copies[2 * blockIdx.x + 1] : 0) * words;
    uint4 v[EACH];

    wait_for_results();
    if (!is_live) return;
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        if (first + k * THREADS < words) v[k] = from[first + k * THREADS];
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        if (first + k * THREADS < words) to[first + k * THREADS] = v[k];
    }
}

} // namespace

extern "C" tf_status tfi_cuda_kv_copy(const tfi_cuda_launch *l, const tfi_kv_copy_args *a)
{
    const int64_t words = tfi_kv_block_bytes(&a->store->shape) / (int64_t)sizeof(uint4);
    const dim3 grid((unsigned)a->count, blocks_of(words, THREADS * EACH));

    if (a->count == 0) return TF_STATUS_OK;
    return start(l, "KV_COPY", kv_copy, grid, THREADS, 0, a->copies, a->store->blocks, words, l->live);
}
