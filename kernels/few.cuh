/* What the products of few rows (few.cu: up to 8 rows, few_tiles.cu and few_wgmma.cu: up to 64) share: the rows that live, what
 * joins a sum on its way to y, and how blocks of a cluster exchange sums. */
#ifndef TFI_KERNELS_FEW_CUH
#define TFI_KERNELS_FEW_CUH

#include "activation.cuh"
#include "reduce.cuh"
#include "types.cuh"

/* More than 8 rows: few.cu decides between itself and these, few_tiles.cu between itself and few_wgmma.cu. */
bool tfi_few_wgmma_fits(const tfi_few_args *a, int capability);
tf_status tfi_cuda_few_wgmma(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows);
int64_t tfi_few_wgmma_parts(const tfi_few_args *a, int multiprocessors); /* tfi_cuda_few_parts() where it fits */
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

/* ---- blocks of a cluster that share K ---- */

/* Four sums straight to the shared memory of block `rank`, where a barrier counts the bytes. Addresses are this block's own. */
__device__ inline void few_send(uint32_t to, uint32_t barrier, int rank, const float (&v)[4])
{
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n\t"
                 ".reg .b32 there, counts;\n\t"
                 "mapa.shared::cluster.u32 there, %0, %2;\n\t"
                 "mapa.shared::cluster.u32 counts, %1, %2;\n\t"
                 "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [there], {%3, %4, %5, %6}, [counts];\n\t"
                 "}" ::"r"(to),
                 "r"(barrier), "r"(rank), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3])
                 : "memory");
#endif
}

/* All that the barrier expects is here. */
__device__ inline void few_wait_to_receive(uint32_t barrier)
{
#if __CUDA_ARCH__ >= 900
    uint32_t done = 0;
    while (!done)
        asm volatile("{\n\t"
                     ".reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], 0;\n\t"
                     "selp.b32 %0, 1, 0, p;\n\t"
                     "}"
                     : "=r"(done)
                     : "r"(barrier)
                     : "memory");
#endif
}

__device__ inline void few_add(float (&to)[4], uint32_t from)
{
    float v[4];
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
                 : "r"(from)
                 : "memory");
    for (int i = 0; i < 4; i++) to[i] += v[i];
}

#endif
