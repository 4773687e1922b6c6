/* TFI_INPUT_KV_MOVES: beams get the blocks of those they go on from, which the run before has decided, without a word of the host.
 *
 * Shapes    moves [B], tables and moved [B, stride]
 * Parallel  a block a sequence
 * Needs     nothing. It reads what the run before wrote and writes what kernels read before they wait: so it comes when all before
 *           it is over, and the launch behind it waits
 * Floor     a launch: 2 us that nothing overlaps */
#include "kv.cuh"

namespace
{

enum { THREADS = 64 };

__global__ void __launch_bounds__(THREADS) kv_moves(tfi_kv_moves_args a, const tfi_cuda_live *live)
{
    begin();
    const int b = (int)blockIdx.x;
    const int64_t stride = live->table_stride;
    if (b >= live->rows[TFI_ROWS_SEQUENCES]) return;

    const tfi_kv_move move = a.moves[b];
    const int last = (a.lens[b] - 1) / TFI_KV_BLOCK, from = move.slot >= 0 ? move.first + a.slots[move.slot].parent : b;
    for (int k = (int)threadIdx.x; k < stride; k += THREADS)
        a.moved[b * stride + k] = a.tables[(k < last ? from : b) * stride + k];
    if (threadIdx.x > 0 || move.slot < 0 || move.copy < 0) return;
    a.copies[2 * move.copy] = a.moves[from].filled;
    a.copies[2 * move.copy + 1] = a.tables[b * stride + last];
}

} // namespace

extern "C" tf_status tfi_cuda_kv_moves(const tfi_cuda_launch *l, const tfi_kv_moves_args *a)
{
    return start(l, "KV_MOVES", kv_moves, dim3((unsigned)a->B), THREADS, 0, *a, l->live);
}
