/* L2NORM: rows divided by their length, which is at least eps; what it computes: src/backend/ref/l2norm.c
 *
 * Shapes    x, y [R, E] in any mix of types; the sum in fp32
 * Parallel  a block a row, which it reads twice (a row of x is in L1 by then)
 * Needs     E % 8 == 0 and 16-byte aligned buffers, otherwise one element a thread
 * Floor     bytes of x and y; launch bound */
#include "reduce.cuh"
#include "types.cuh"

namespace
{

struct l2norm_call {
    tfi_l2norm_args a;
    tfi_op_types t;
    const tfi_cuda_live *live;
    tfi_rows rows;
};

template <int V>
__global__ void l2norm(l2norm_call c)
{
    begin();
    __shared__ float2 shared[WARPS_MAX];
    const int64_t row = (int64_t)blockIdx.x * c.a.E, begin = (int64_t)threadIdx.x * V, step = (int64_t)blockDim.x * V;
    float2 sums = make_float2(0, 0);
    float v[V];

    if (blockIdx.x >= c.live->rows[c.rows]) return;
    for (int64_t i = begin; i < c.a.E; i += step) {
        load<V>(c.a.x, c.t.x, row + i, v);
        for (int k = 0; k < V; k++) sums.x += v[k] * v[k];
    }
    const float length = sqrtf(block_sum(sums, shared).x), divisor = length < c.a.eps ? c.a.eps : length;
    for (int64_t i = begin; i < c.a.E; i += step) {
        load<V>(c.a.x, c.t.x, row + i, v);
        for (int k = 0; k < V; k++) v[k] /= divisor;
        store(c.a.y, c.t.y, row + i, v);
    }
}

} // namespace

extern "C" tf_status tfi_cuda_l2norm(const tfi_cuda_launch *l, const tfi_l2norm_args *a, tfi_op_types t, tfi_rows rows)
{
    const l2norm_call c = {*a, t, l->live, rows};

    if (a->R == 0) return TF_STATUS_OK;
    if (in_vectors(a->E, a->x, a->y)) return start(l, "L2NORM", l2norm<8>, (unsigned)a->R, 128, 0, c);
    return start(l, "L2NORM", l2norm<1>, (unsigned)a->R, 128, 0, c);
}
