/* GLU: the activated left half of a row times its right half; what it computes: src/backend/ref/glu.c
 *
 * Shapes    x [R, 2*F], y [R, F] in any mix of types
 * Parallel  grid [R, F / elements of a block], 8 elements a thread
 * Needs     F % 8 == 0 and 16-byte aligned buffers, otherwise one element a thread
 * Floor     bytes of x and y; R=4096, F=3072 in bf16: 75 MB / 4.3 TB/s = 18 us */
#include "activation.cuh"
#include "types.cuh"

namespace
{

enum { THREADS = 128 };

struct glu_call {
    tfi_glu_args a;
    tfi_op_types t;
    const tfi_cuda_live *live;
    tfi_rows rows;
};

template <int V>
__global__ void glu(glu_call c)
{
    begin();
    const int64_t r = blockIdx.x, F = c.a.F, i = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * V;
    float gate[V], up[V];

    if (r >= c.live->rows[c.rows] || i >= F) return;
    const raw_elements<V> raw_gate = load_raw<V>(c.a.x, c.t.x, 2 * r * F + i);
    const raw_elements<V> raw_up = load_raw<V>(c.a.x, c.t.x, 2 * r * F + F + i);
    widen(raw_gate, c.t.x, gate);
    widen(raw_up, c.t.x, up);
    activate(c.a.activation, gate);
#pragma unroll
    for (int k = 0; k < V; k++) gate[k] *= up[k];
    store(c.a.y, c.t.y, r * F + i, gate);
}

} // namespace

extern "C" tf_status tfi_cuda_glu(const tfi_cuda_launch *l, const tfi_glu_args *a, tfi_op_types t, tfi_rows rows)
{
    const glu_call c = {*a, t, l->live, rows};

    if (a->R == 0) return TF_STATUS_OK;
    if (in_vectors(a->F, a->x, a->y))
        return start(l, "GLU", glu<8>, dim3((unsigned)a->R, blocks_of(a->F, 8 * THREADS)), THREADS, 0, c);
    return start(l, "GLU", glu<1>, dim3((unsigned)a->R, blocks_of(a->F, THREADS)), THREADS, 0, c);
}
