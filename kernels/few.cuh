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

enum { FEW_NORM_CHUNKS = 3 };                           /* of 8 elements, that a lane holds */
enum { FEW_NORM_MAX = 8 * WARP * 8 * FEW_NORM_CHUNKS }; /* columns */

/* Warps that share a row. It is a function of K alone, and so is the order of the sums. A block has a multiple of it. */
__host__ __device__ inline int few_norm_team(int64_t K)
{
    const int64_t each = WARP * 8 * FEW_NORM_CHUNKS;
    return K <= each ? 1 : K <= 2 * each ? 2 : K <= 4 * each ? 4 : 8;
}

/* Bytes of `sums` below. */
__host__ __device__ inline int64_t few_norm_bytes(int64_t M, int64_t K)
{
    return M * few_norm_team(K) * (int64_t)sizeof(float2);
}

/* z[m] = norm(x + residual) of `rows` rows in a.type, `stride` bytes a row, in shared memory; the whole block comes along, and
 * synchronises before it reads z. The block for which `keeps` is set writes norm.y too: other blocks still read, so norm.y must
 * be neither norm.x nor norm.residual. Sums are taken of differences to the mean of the row's first elements, which is a mean
 * as good as any: x and residual are read once, the lanes meet once, and a mean of 10,000 deviations costs no digits. gain,
 * bias: those of the norm or copies; sums: few_norm_bytes() of shared memory. */
__device__ inline void few_norm(const tfi_few_args &a, const float *gain, const float *bias, int rows, char *z, int64_t stride,
                                float2 *sums, bool keeps)
{
    const tfi_norm_args &n = a.norm;
    const int team = few_norm_team(a.K), warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int teams = blockDim.x / WARP / team, mate = warp % team, step = team * WARP * 8;
    const int64_t begin = (mate * WARP + lane) * 8;

    for (int first = 0; first < rows; first += teams) {
        const int m = first + warp / team;
        const bool here = m < rows;
        const int64_t row = here ? few_source(a, m) * a.K : 0;
        raw_elements<8> x[FEW_NORM_CHUNKS], residual[FEW_NORM_CHUNKS];
        float v[FEW_NORM_CHUNKS][8], pivot = 0;
        float2 s = make_float2(0, 0);

        if (here) {
            float start[8], added[8] = {};
            const raw_elements<8> start_raw = load_raw<8>(n.x, a.norm_x, row);
            if (n.residual) load<8>(n.residual, a.norm_residual, row, added);
#pragma unroll
            for (int k = 0; k < FEW_NORM_CHUNKS; k++) {
                const int64_t i = begin + k * step;
                if (i >= a.K) break;
                x[k] = load_raw<8>(n.x, a.norm_x, row + i);
                if (n.residual) residual[k] = load_raw<8>(n.residual, a.norm_residual, row + i);
            }
            widen(start_raw, a.norm_x, start);
            if (n.norm == TFI_NORM_LAYER)
                for (int j = 0; j < 8; j++) pivot += (start[j] + added[j]) * 0.125f;
#pragma unroll
            for (int k = 0; k < FEW_NORM_CHUNKS; k++) {
                if (begin + k * step >= a.K) break;
                widen(x[k], a.norm_x, v[k]);
                if (n.residual) {
                    widen(residual[k], a.norm_residual, added);
#pragma unroll
                    for (int j = 0; j < 8; j++) v[k][j] += added[j];
                }
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    v[k][j] -= pivot;
                    s.x += v[k][j];
                    s.y += v[k][j] * v[k][j];
                }
            }
            s = make_float2(warp_sum(s.x), warp_sum(s.y));
        }
        if (team > 1) {
            if (here && lane == 0) sums[m * team + mate] = s;
            __syncthreads();
            s = make_float2(0, 0);
            for (int k = 0; k < team && here; k++) {
                s.x += sums[m * team + k].x;
                s.y += sums[m * team + k].y;
            }
        }
        if (!here) continue;
        const float shift = n.norm == TFI_NORM_LAYER ? s.x / (float)a.K : 0, variance = s.y / (float)a.K - shift * shift;
        const float factor = isnan(s.y) ? s.y : 1 / sqrtf(fmaxf(variance, 0) + n.eps); /* fmaxf would lose a NaN */
#pragma unroll
        for (int k = 0; k < FEW_NORM_CHUNKS; k++) {
            const int64_t i = begin + k * step;
            if (i >= a.K) break;
            float g[8], b[8] = {};
            load<8>(gain, TFI_F32, i, g);
            if (bias) load<8>(bias, TFI_F32, i, b);
#pragma unroll
            for (int j = 0; j < 8; j++) v[k][j] = (v[k][j] - shift) * factor * g[j] + b[j];
            store(z + m * stride, a.type, i, v[k]);
            if (keeps && n.y) store(n.y, a.type, m * a.K + i, v[k]);
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
