/* Rows that the caller wants, from device memory to pinned memory of the host.
 *
 * Shapes    bytes, a multiple of 16 on both sides
 * Parallel  16 bytes a thread
 * Floor     a trip over the bus, 1.2 us; the copy engine would begin 5.5 us behind the last kernel */
#include "types.cuh"

namespace
{

enum { THREADS = 128 };

__global__ void __launch_bounds__(THREADS) give_rows(const uint4 *from, uint4 *to, int count)
{
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i < count) to[i] = from[i];
}

} // namespace

extern "C" tf_status tfi_cuda_give_rows(const tfi_rows_args *a, cudaStream_t stream)
{
    const int count = (int)(a->bytes / 16);

    give_rows<<<blocks_of(count, THREADS), THREADS, 0, stream>>>((const uint4 *)a->from, (uint4 *)a->to, count);
    return started("rows for the caller", cudaPeekAtLastError());
}
