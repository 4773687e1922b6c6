/* What the products of few rows (few.cu: up to 8 rows, few_tiles.cu: up to 64) share: the rows that live, the norm in front of
 * the product, and what joins a sum on its way to y. */
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

/* ---- the norm ---- */

/* A warp holds this many columns of a row, 8 a lane at a time; a block's warps, at least 8, as many times more. */
enum { FEW_NORM_HOLDS = 2, FEW_NORM_COLUMNS = FEW_NORM_HOLDS * WARP * 8, FEW_NORM_MAX = 8 * FEW_NORM_COLUMNS };

/* What a warp knows of its part of a row: `count` elements, their differences to `pivot`. */
struct few_statistics {
    float pivot, count, differences, squares;
};

/* Bytes of `parts` below. */
__host__ __device__ inline int64_t few_norm_bytes(int64_t M)
{
    return M * 8 * (int64_t)sizeof(few_statistics);
}

/* z[m] = norm(x + residual) for `rows` rows; put(m, i, v) takes elements [i, i + 8) of row m, not rounded yet. The whole block
 * comes along, and synchronises before it reads z. As few warps as can hold it share a row, so the order of its sums is a
 * function of K alone. Sums are taken of differences to the mean of a few elements, which is as good as the mean of all: so x
 * and residual are read once, lanes meet once, and a mean of 10,000 deviations costs no digits.
 *
 * gain, bias: those of the norm or copies that are there after ready(); parts: few_norm_bytes() of shared memory. */
template <typename Ready, typename Put>
__device__ inline void few_norm(const tfi_few_args &a, const float *gain, const float *bias, int rows, few_statistics *parts,
                                Ready ready, Put put)
{
    const tfi_norm_args &n = a.norm;
    const int K = (int)a.K, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int doubled = K <= FEW_NORM_COLUMNS ? 0 : K <= 2 * FEW_NORM_COLUMNS ? 1 : K <= 4 * FEW_NORM_COLUMNS ? 2 : 3;
    const int team = 1 << doubled, mate = warp % team, begin = mate * FEW_NORM_COLUMNS + lane * 8;

    for (int m = warp >> doubled, first = 0; first < rows;
         m += blockDim.x / WARP >> doubled, first += blockDim.x / WARP >> doubled) {
        float v[FEW_NORM_HOLDS][8] = {}, differences = 0, squares = 0, pivot = 0;

        if (m < rows) {
            const int64_t at = few_source(a, m) * K + begin;
            raw_elements<8> x[FEW_NORM_HOLDS], residual[FEW_NORM_HOLDS];
#pragma unroll
            for (int k = 0; k < FEW_NORM_HOLDS; k++) {
                if (begin + k * WARP * 8 >= K) break;
                x[k] = load_raw<8>(n.x, a.norm_x, at + k * WARP * 8);
                if (n.residual) residual[k] = load_raw<8>(n.residual, a.norm_residual, at + k * WARP * 8);
            }
#pragma unroll
            for (int k = 0; k < FEW_NORM_HOLDS; k++) {
                if (begin + k * WARP * 8 >= K) break;
                widen(x[k], a.norm_x, v[k]);
                if (n.residual) {
                    float added[8];
                    widen(residual[k], a.norm_residual, added);
#pragma unroll
                    for (int j = 0; j < 8; j++) v[k][j] += added[j];
                }
            }
            if (n.norm == TFI_NORM_LAYER) { /* the first lane is the last to have no elements */
#pragma unroll
                for (int j = 0; j < 8; j++) pivot += v[0][j] * 0.125f;
                pivot = __shfl_sync(0xffffffffu, pivot, 0);
            }
#pragma unroll
            for (int k = 0; k < FEW_NORM_HOLDS; k++) {
                if (begin + k * WARP * 8 >= K) break;
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    v[k][j] -= pivot;
                    differences += v[k][j];
                    squares += v[k][j] * v[k][j];
                }
            }
            differences = warp_sum(differences);
            squares = warp_sum(squares);
            const float count = (float)max(min(K - mate * FEW_NORM_COLUMNS, (int)FEW_NORM_COLUMNS), 0);
            if (lane == 0) parts[m * team + mate] = {pivot, count, differences, squares};
        }
        ready();
        __syncthreads();
        if (m >= rows) continue;
        differences = squares = 0;
#pragma unroll 1
        for (int k = 0; k < team; k++) { /* as differences to this warp's pivot */
            const few_statistics part = parts[m * team + k];
            const float apart = part.pivot - pivot;
            differences += part.differences + part.count * apart;
            squares += part.squares + apart * (2 * part.differences + part.count * apart);
        }
        const float share = __frcp_rn((float)K), shift = n.norm == TFI_NORM_LAYER ? differences * share : 0;
        const float variance = fmaxf(squares * share - shift * shift, 0); /* which loses a NaN */
        const float factor = isnan(squares) ? squares : rsqrtf(variance + n.eps);
#pragma unroll
        for (int k = 0; k < FEW_NORM_HOLDS; k++) {
            const int i = begin + k * WARP * 8;
            float g[8], b[8] = {};
            if (i >= K) break;
            load<8>(gain, TFI_F32, i, g);
            if (bias) load<8>(bias, TFI_F32, i, b);
#pragma unroll
            for (int j = 0; j < 8; j++) v[k][j] = (v[k][j] - shift) * factor * g[j] + b[j];
            put(m, i, v[k]);
        }
    }
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
