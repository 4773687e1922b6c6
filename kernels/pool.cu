/* POOL: one vector a sequence for each pooling asked for; what it computes: src/backend/ref/pool.c
 *
 * Shapes    x [R, E], y [B, n*E] in any mix of types; sums in fp32
 * Parallel  grid [B, E / columns of a block]; 16 threads side by side take 8 columns each, 16 such groups every 16th row of the
 *           sequence, and meet in shared memory
 * Needs     E % 8 == 0 and 16-byte aligned buffers, otherwise one column a thread
 * Floor     bytes of x, once for each pooling that sees every row; R=4096, E=768 in bf16: 6.3 MB, from L2 */
#include "types.cuh"

namespace
{

enum { SIDE = 16, GROUPS = 16 };

struct pool_call {
    tfi_pool_args a;
    tfi_op_types t;
    const tfi_cuda_live *live;
};

__device__ float larger(float max, float v)
{
    return v > max || isnan(v) ? v : max; /* a NaN stays: nothing is larger */
}

/* This thread's columns over the rows of its group. */
template <int V>
__device__ void pool_rows(const pool_call &c, int pooling, int64_t begin, int64_t end, int64_t i, float (&v)[V])
{
    float row[V];

#pragma unroll
    for (int k = 0; k < V; k++) v[k] = pooling == TFI_POOL_MAX ? -INFINITY : 0;
    for (int64_t r = begin + c.a.skip + threadIdx.y; r < end; r += GROUPS) {
        const float weight = pooling == TFI_POOL_WEIGHTED ? (float)(r - begin + 1) : 1;
        load<V>(c.a.x, c.t.x, r * c.a.E + i, row);
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = pooling == TFI_POOL_MAX ? larger(v[k], row[k]) : v[k] + weight * row[k];
    }
}

__device__ float divisor_of(const pool_call &c, int pooling, int64_t n)
{
    const float all = (float)n, skip = (float)c.a.skip;
    switch (pooling) {
    case TFI_POOL_MEAN:
        return all - skip;
    case TFI_POOL_MEAN_SQRT:
        return sqrtf(all - skip);
    case TFI_POOL_WEIGHTED:
        return (all * (all + 1) - skip * (skip + 1)) / 2;
    default:
        return 1;
    }
}

/* What all groups have becomes group 0's. */
template <int V>
__device__ void meet(int pooling, float (&v)[V], float *shared)
{
    float *mine = shared + (threadIdx.y * SIDE + threadIdx.x) * V;

    __syncthreads(); /* the pooling before has read what it needs */
#pragma unroll
    for (int k = 0; k < V; k++) mine[k] = v[k];
    __syncthreads();
    if (threadIdx.y != 0) return;
    for (int g = 1; g < GROUPS; g++) {
#pragma unroll
        for (int k = 0; k < V; k++) {
            const float other = mine[g * SIDE * V + k];
            v[k] = pooling == TFI_POOL_MAX ? larger(v[k], other) : v[k] + other;
        }
    }
}

template <int V>
__global__ void __launch_bounds__(SIDE *GROUPS) pool(pool_call c)
{
    begin();
    __shared__ float shared[SIDE * GROUPS * V];
    const int64_t b = blockIdx.x, i = ((int64_t)blockIdx.y * SIDE + threadIdx.x) * V;
    int64_t at;
    int count = 0;

    if (b >= c.live->rows[TFI_ROWS_SEQUENCES]) return;
    const int64_t begin = c.a.offsets[b], end = c.a.offsets[b + 1];
    const bool inside = i < c.a.E;
    for (int32_t p = c.a.pooling; p; p >>= 3) count++;
    at = b * count * c.a.E + i;
    for (int32_t p = c.a.pooling; p; p >>= 3, at += c.a.E) {
        const int pooling = p & 7;
        float v[V] = {};
        if (pooling == TFI_POOL_CLS || pooling == TFI_POOL_LAST) {
            const int64_t r = pooling == TFI_POOL_CLS ? begin + c.a.skip : end - 1;
            if (inside) load<V>(c.a.x, c.t.x, r * c.a.E + i, v);
        } else {
            if (inside) pool_rows<V>(c, pooling, begin, end, i, v);
            meet<V>(pooling, v, shared);
            const float divisor = divisor_of(c, pooling, end - begin);
            for (int k = 0; k < V; k++) v[k] /= divisor;
        }
        if (inside && threadIdx.y == 0) store(c.a.y, c.t.y, at, v);
    }
}

} // namespace

extern "C" tf_status tfi_cuda_pool(const tfi_cuda_launch *l, const tfi_pool_args *a, tfi_op_types t)
{
    const pool_call c = {*a, t, l->live};
    const dim3 threads(SIDE, GROUPS);

    if (a->B == 0) return TF_STATUS_OK;
    if (in_vectors(a->E, a->x, a->y)) return start(l, "POOL", pool<8>, dim3((unsigned)a->B, blocks_of(a->E, 8 * SIDE)), threads, 0, c);
    return start(l, "POOL", pool<1>, dim3((unsigned)a->B, blocks_of(a->E, SIDE)), threads, 0, c);
}
