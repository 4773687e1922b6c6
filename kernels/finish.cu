/* What follows a matrix product where the library's epilogue lacks the formula: y = act(sums + bias) + residual
 *
 * Shapes    sums [M, N] fp32 or y's type; bias [N] fp32; residual, y [M, N] in y's type. y may be sums or residual.
 * Parallel  a thread has 8 columns of 2 rows, whose loads are under way together, where there are many rows, else of one; a
 *           block's columns are an even share of N, so that few of its threads are beyond
 * Needs     N % 8 == 0 and 16-byte aligned buffers, otherwise one element a thread
 * Floor     bytes of sums, residual and y; M=49152, N=3072, fp16 in place: 604 MB / 4.3 TB/s = 140 us. GELU is 13
 *           instructions an element, with the rest 19: 100 us of the issue slots.
 * Measured  166 us on H200; at M=512 3.3 us
 * Tried     erfcf() and one row a thread: 389 us; 4 rows a thread in 94 registers: 172 us, in 72: 203 us */
#include "activation.cuh"
#include "types.cuh"

namespace
{

enum { THREADS = 128, ROWS = 2, MANY = 4096 };

struct finish_call {
    tfi_finish_args a;
    tfi_op_types t;
    const tfi_cuda_live *live;
    tfi_rows rows;
};

template <int V, int R>
__global__ void __launch_bounds__(THREADS, 8) finish(finish_call c)
{
    begin();
    const int64_t first = (int64_t)blockIdx.x * R, i = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * V;
    const int64_t at = first * c.a.N + i, live = c.live->rows[c.rows] - first;
    raw_elements<V> sums[R], raw_residual[R] = {};
    float bias[V] = {};

    if (i >= c.a.N) return;
#pragma unroll
    for (int r = 0; r < R; r++)
        if (r < live) sums[r] = load_raw<V>(c.a.sums, c.t.x, at + r * c.a.N);
    if (c.a.residual) {
#pragma unroll
        for (int r = 0; r < R; r++)
            if (r < live) raw_residual[r] = load_raw<V>(c.a.residual, c.t.y, at + r * c.a.N);
    }
    if (c.a.bias) load<V>(c.a.bias, TFI_F32, i, bias);
#pragma unroll
    for (int r = 0; r < R; r++) {
        float v[V], residual[V];
        if (r >= live) return;
        widen(sums[r], c.t.x, v);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] += bias[k];
        activate(c.a.activation, v);
        if (c.a.residual) {
            widen(raw_residual[r], c.t.y, residual);
#pragma unroll
            for (int k = 0; k < V; k++) v[k] += residual[k];
        }
        store(c.a.y, c.t.y, at + r * c.a.N, v);
    }
}

template <int V, int R>
tf_status launch(const tfi_cuda_launch *l, const finish_call &c)
{
    const unsigned columns = blocks_of(c.a.N, V), blocks = blocks_of(columns, THREADS);
    const unsigned threads = blocks_of(blocks_of(columns, blocks), 32) * 32;
    return start(l, "LINEAR's end", finish<V, R>, dim3(blocks_of(c.a.M, R), blocks), threads, 0, c);
}

} // namespace

extern "C" tf_status tfi_cuda_finish(const tfi_cuda_launch *l, const tfi_finish_args *a, tfi_op_types t, tfi_rows rows)
{
    const finish_call c = {*a, t, l->live, rows};

    if (a->M == 0) return TF_STATUS_OK;
    if (!in_vectors(a->N, a->sums, a->bias, a->residual, a->y)) return launch<1, 1>(l, c);
    return a->M >= MANY ? launch<8, ROWS>(l, c) : launch<8, 1>(l, c);
}
