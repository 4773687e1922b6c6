/* What the products of few rows (few.cu: up to 8 rows, few_tiles.cu: up to 64) share: the rows that live, and what joins a sum
 * on its way to y. */
#ifndef TFI_KERNELS_FEW_CUH
#define TFI_KERNELS_FEW_CUH

#include "activation.cuh"
#include "reduce.cuh"
#include "types.cuh"

/* More than 8 rows; few.cu decides between the two. */
bool tfi_few_tiles_fits(const tfi_few_args *a, int capability);
tf_status tfi_cuda_few_tiles(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows);

struct few_call {
    tfi_few_args a;
    const tfi_cuda_live *live;
    tfi_rows rows;
};

__device__ inline int few_live(const few_call &c)
{
    return min((int)c.a.M, c.live->rows[c.rows]);
}

/* The row of norm.x and norm.residual, or of x, that is row m. */
__device__ inline int64_t few_source(const tfi_few_args &a, int m)
{
    return a.from ? a.from[m] : m;
}

/* ---- from a sum to y ---- */

/* Columns of y. */
__host__ __device__ inline int64_t few_columns(const tfi_few_args &a)
{
    return a.gated ? a.N / 2 : a.N;
}

__device__ inline float few_bias(const tfi_few_args &a, int64_t n)
{
    return a.bias ? a.bias[n] : 0;
}

__device__ inline float few_residual(const tfi_few_args &a, int64_t m, int64_t n)
{
    return a.residual ? load_one(a.residual, a.out, m * a.N + n) : 0;
}

/* v: the sum, bias in it. Gated: v is the gate, `other` the right half's; else it is not read. */
__device__ inline void few_store(const tfi_few_args &a, int64_t m, int64_t n, float v, float other, float residual)
{
    const float active = activate(a.activation, v);
    const float y[1] = {a.gated ? active * other : active + residual};
    store(a.y, a.out, m * few_columns(a) + n, y);
}

#endif
