/* Rows that the caller wants, from device memory to pinned memory of the host.
 *
 * Shapes    bytes, a multiple of 16 on both sides
 * Parallel  16 bytes a thread; a run's results by one block, which then says that they are there
 * Floor     a trip over the bus, 1.2 us; the copy engine would begin 5.5 us behind the last kernel
 * Measured  H200, CUDA 13.0, BERT-base, from a call to its end: results at the end of the graph 0.8 us sooner than by a launch
 *           behind it, and 4 us more where the host looks for the run's number and does not wait for an event */
#include "types.cuh"

namespace
{

enum { THREADS = 128, RESULT_THREADS = 512 };

__global__ void __launch_bounds__(THREADS) give_rows(const uint4 *from, uint4 *to, int count)
{
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i < count) to[i] = from[i];
}

__global__ void __launch_bounds__(RESULT_THREADS) give_results(tfi_results_args a, const tfi_cuda_live *live)
{
    begin();
    for (int k = 0; k < a.count; k++) {
        const int count = (int)(a.rows[k].bytes / 16);
        for (int i = (int)threadIdx.x; i < count; i += RESULT_THREADS)
            ((uint4 *)a.rows[k].to)[i] = ((const uint4 *)a.rows[k].from)[i];
    }
    __threadfence_system();
    __syncthreads();
    if (threadIdx.x == 0) *(volatile uint32_t *)a.number = live->number;
}

} // namespace

extern "C" tf_status tfi_cuda_give_rows(const tfi_rows_args *a, cudaStream_t stream)
{
    const int count = (int)(a->bytes / 16);

    give_rows<<<blocks_of(count, THREADS), THREADS, 0, stream>>>((const uint4 *)a->from, (uint4 *)a->to, count);
    return started("rows for the caller", cudaPeekAtLastError());
}

extern "C" tf_status tfi_cuda_give_results(const tfi_cuda_launch *l, const tfi_results_args *a)
{
    return start(l, "results for the caller", give_results, 1, RESULT_THREADS, 0, *a, l->live);
}
