/* The inputs of a run, from pinned memory of the host to where its kernels read them.
 *
 * Shapes    two pieces of pinned memory, each of the run's bytes; to: as many
 * Which     Two runs may be on their way, so a captured graph cannot know which piece is its own: that of the lowest number above
 *           the number of the run before, which is still there on the device. The host fills a piece only when its run is over.
 * Parallel  one block; numbers and both pieces are read in one go, which is one trip over the bus. By ordinary loads: those that
 *           pass the caches by (.cv) cross the bus one thread after the other, 17 us. A kernel's first reads find its caches empty
 * Needs     16-byte aligned pieces of up to TFI_INPUTS_TAKEN bytes; more is a copy's
 * Floor     a trip over the bus, 1.2 us
 * Measured  H200, CUDA 13.0: between the last kernel of a step and the first that computes in the next, as graphs: 5.4 us, of
 *           which 3.2 are the graphs'
 * Lost      a copy in front of the graph, or as its first node: 14 us: the copy engine begins 5.5 us behind a kernel, and the
 *           graph 8 us behind it. This kernel launched in front of the graph: 6.5 us */
#include "types.cuh"

namespace
{

enum { THREADS = 256, EACH = TFI_INPUTS_TAKEN / 16 / THREADS };

__global__ void __launch_bounds__(THREADS)
    take_inputs(const char *first, const char *second, char *to, int words, int number_at)
{
    follow();
    const uint4 *pieces[2] = {(const uint4 *)first, (const uint4 *)second};
    uint4 v[2][EACH];

    const uint32_t last = *(const uint32_t *)(to + number_at);
    const uint32_t a = *(const uint32_t *)(first + number_at), b = *(const uint32_t *)(second + number_at);
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const int i = k * THREADS + threadIdx.x;
#pragma unroll
        for (int p = 0; p < 2; p++)
            if (i < words) v[p][k] = pieces[p][i];
    }
    __syncthreads(); /* all have read the last number */
    /* Numbers go around, so what counts is the distance. */
    const int from_a = (int)(a - last), from_b = (int)(b - last);
    const bool is_b = from_b > 0 && (from_a <= 0 || from_b < from_a);
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const int i = k * THREADS + threadIdx.x;
        if (i < words) ((uint4 *)to)[i] = is_b ? v[1][k] : v[0][k];
    }
}

} // namespace

/* It writes what kernels read before they wait: it comes when all before it is over, and of those behind it only EMBED comes
 * early, which waits before it reads. */
extern "C" tf_status tfi_cuda_take_inputs(const tfi_cuda_launch *l, const tfi_inputs_args *a)
{
    take_inputs<<<1, THREADS, 0, l->stream>>>((const char *)a->pieces[0], (const char *)a->pieces[1], (char *)a->to,
                                              (int)((a->bytes + 15) / 16), (int)a->number_at);
    return started("the inputs", cudaPeekAtLastError());
}
