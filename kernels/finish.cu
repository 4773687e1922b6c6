/* What follows a matrix product where the library's epilogue lacks the formula: y = act(sums + bias) + residual
 *
 * Shapes    sums [M, N] fp32 or y's type; bias [N] fp32; residual, y [M, N] in y's type. y may be sums or residual.
 * Parallel  grid [M, N / elements of a block], 8 elements a thread
 * Needs     N % 8 == 0 and 16-byte aligned buffers, otherwise one element a thread
 * Floor     bytes of sums, residual and y; M=4096, N=3072, bf16 in and out: 50 MB / 4.3 TB/s = 12 us, less from L2 */
#include "activation.cuh"
#include "types.cuh"

namespace
{

enum { THREADS = 128 };

struct finish_call {
    tfi_finish_args a;
    tfi_op_types t;
    const tfi_cuda_live *live;
    tfi_rows rows;
};

template <int V>
__global__ void finish(finish_call c)
{
    begin();
    const int64_t r = blockIdx.x, i = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * V, at = r * c.a.N + i;
    raw_elements<V> raw_residual = {};
    float v[V], bias[V] = {}, residual[V];

    if (r >= c.live->rows[c.rows] || i >= c.a.N) return;
    const raw_elements<V> sums = load_raw<V>(c.a.sums, c.t.x, at);
    if (c.a.residual) raw_residual = load_raw<V>(c.a.residual, c.t.y, at);
    if (c.a.bias) load<V>(c.a.bias, TFI_F32, i, bias);
    widen(sums, c.t.x, v);
    widen(raw_residual, c.t.y, residual); /* zeros where there is none */
#pragma unroll
    for (int k = 0; k < V; k++) v[k] = activate(c.a.activation, v[k] + bias[k]) + residual[k];
    store(c.a.y, c.t.y, at, v);
}

} // namespace

extern "C" tf_status tfi_cuda_finish(const tfi_cuda_launch *l, const tfi_finish_args *a, tfi_op_types t, tfi_rows rows)
{
    const finish_call c = {*a, t, l->live, rows};

    if (a->M == 0) return TF_STATUS_OK;
    if (in_vectors(a->N, a->sums, a->bias, a->residual, a->y))
        return start(l, "LINEAR's end", finish<8>, dim3((unsigned)a->M, blocks_of(a->N, 8 * THREADS)), THREADS, 0, c);
    return start(l, "LINEAR's end", finish<1>, dim3((unsigned)a->M, blocks_of(a->N, THREADS)), THREADS, 0, c);
}
