/* NORM: residual add, then layer or root mean square normalisation; what it computes: src/backend/ref/norm.c; with GATHER_ROWS
 * before it where the call picks rows of x
 *
 * Shapes    x, residual, y [R, E] in any mix of types; gain, bias [E] fp32; statistics in fp32
 * Parallel  a block a row. Up to E = 8192 the row stays in registers, 8 to 32 elements a thread, so that x and residual are
 *           read once; gain, bias and the live count are there before the results of the kernel before. Above 1056 rows,
 *           a warp a row up to E = 1024: no barriers, and 9 loads of 16 bytes a thread are under way. So also from 400 rows
 *           of one 16-bit type: fewer instructions in all.
 * Accuracy  the first mean is off by its rounding; the second pass sums differences to it as well as their squares and takes
 *           that error out again, so a mean of 10,000 deviations costs no digits
 * Needs     E % 8 == 0, E <= 8192, 16-byte aligned buffers; otherwise norm_any reads the row three times
 * Floor     bytes of x, residual and y; R=4096, E=768 in bf16 with residual: 18.9 MB / 4.3 TB/s = 4.4 us, less from L2;
 *           R=49152, E=768, fp32 and fp16 giving fp16: 302 MB = 70 us
 * Measured  72 us of those 70 on H200; a block a row took 100. 2560 rows of 768, fp32 giving fp16: 6.1 us and 8.6, 1100: 4.4
 *           and 4.5. 64 rows in a chain of a decode step's launches: 0.15 us less
 *           where few blocks go through it twice. 512 rows of fp16 by a warp each: 2.6 us in a chain of its own kind, in a
 *           layer of BERT-base 2.85; by a block each 2.4 and 3.1. 384 rows: no difference in a layer */
#include "norm.cuh"
#include "reduce.cuh"
#include "types.cuh"

namespace
{

enum { BLOCK_ROWS = 4, SOME_ROWS = 400, REHEARSED = 264, ANY = -1 };

struct norm_call {
    tfi_norm_args a;
    tfi_op_types t;
    const tfi_cuda_live *live;
    tfi_rows rows;
    const int32_t *from;
};

/* First element of row r in x, which is that in y but where rows are picked. */
__device__ int64_t source_of(const norm_call &c, int64_t r, bool lives)
{
    return (c.from && lives ? c.from[r] : r) * c.a.E;
}

/* Where blocks are few and wait for the kernel before, they go through all of it twice, first with zeros: then the instructions
 * are there. */
template <int CHUNKS>
__global__ void __launch_bounds__(256) norm_held(norm_call c)
{
    follow();
    __shared__ float2 first[WARPS_MAX], second[WARPS_MAX];
    const int64_t row = (int64_t)blockIdx.x * c.a.E, step = (int64_t)blockDim.x * 8;
    raw_elements<8> x[CHUNKS], residual[CHUNKS];
    float z[CHUNKS][8], gain[CHUNKS][8], bias[CHUNKS][8] = {};
    float2 sums = make_float2(0, 0);
    float mean = 0;

    const bool lives = blockIdx.x < c.live->rows[c.rows];
    const int64_t source = source_of(c, blockIdx.x, lives);
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        const int64_t i = threadIdx.x * 8 + k * step;
        if (i >= c.a.E) break;
        load<8>(c.a.gain, TFI_F32, i, gain[k]);
        if (c.a.bias) load<8>(c.a.bias, TFI_F32, i, bias[k]);
        x[k] = residual[k] = raw_elements<8>{};
    }
#pragma unroll 1
    for (int turn = gridDim.x <= REHEARSED ? 0 : 1; turn < 2; turn++) {
        if (turn == 1) {
            __syncthreads();
            wait_for_results();
            if (!lives) return;
        }
        sums = make_float2(0, 0);
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int64_t i = threadIdx.x * 8 + k * step;
            if (turn == 0 || i >= c.a.E) break;
            x[k] = load_raw<8>(c.a.x, c.t.x, source + i);
            if (c.a.residual) residual[k] = load_raw<8>(c.a.residual, c.t.residual, row + i);
        }
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            if (threadIdx.x * 8 + k * step >= c.a.E) break;
            widen(x[k], c.t.x, z[k]);
            if (c.a.residual) {
                float added[8];
                widen(residual[k], c.t.residual, added);
#pragma unroll
                for (int j = 0; j < 8; j++) z[k][j] += added[j];
            }
#pragma unroll
            for (int j = 0; j < 8; j++) sums.x += z[k][j];
        }
        if (c.a.norm == TFI_NORM_LAYER) mean = block_sum(sums, first).x / (float)c.a.E;
        sums = make_float2(0, 0);
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            if (threadIdx.x * 8 + k * step >= c.a.E) break;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                z[k][j] -= mean;
                sums.x += z[k][j];
                sums.y += z[k][j] * z[k][j];
            }
        }
        const norm_statistics s = statistics_of(c.a, block_sum(sums, second));
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int64_t i = threadIdx.x * 8 + k * step;
            if (i >= c.a.E) break;
#pragma unroll
            for (int j = 0; j < 8; j++) z[k][j] = (z[k][j] - s.shift) * s.factor * gain[k][j] + bias[k][j];
            if (turn == 1) store(c.a.y, c.t.y, row + i, z[k]);
        }
    }
}

/* A warp a row, the lane's chunks of 8 a warp's width apart. TYPE: of all rows, where they are few: that takes a third of the
 * instructions, which are rehearsed as above; or ANY. */
template <int CHUNKS, int TYPE>
__global__ void __launch_bounds__(BLOCK_ROWS *WARP) norm_rows(norm_call c)
{
    follow();
    const tfi_op_types t = TYPE == ANY ? c.t : (tfi_op_types){(tfi_dtype)TYPE, (tfi_dtype)TYPE, (tfi_dtype)TYPE};
    const int lane = threadIdx.x % WARP, step = WARP * 8;
    const int64_t r = (int64_t)blockIdx.x * BLOCK_ROWS + threadIdx.x / WARP, row = r * c.a.E;
    raw_elements<8> x[CHUNKS], residual[CHUNKS];
    float z[CHUNKS][8], mean = 0;

    const bool lives = r < c.live->rows[c.rows];
    const int64_t source = source_of(c, r, lives);
#pragma unroll 1
    for (int turn = TYPE == ANY ? 1 : 0; turn < 2; turn++) {
        float2 sums = make_float2(0, 0);
        if (turn == 1) {
            wait_for_results();
            if (!lives) return;
        }
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int i = lane * 8 + k * step;
            if (turn == 0) x[k] = residual[k] = raw_elements<8>{};
            if (turn == 1 && i < c.a.E) x[k] = load_raw<8>(c.a.x, t.x, source + i);
            if (turn == 1 && c.a.residual && i < c.a.E) residual[k] = load_raw<8>(c.a.residual, t.residual, row + i);
        }
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            if (lane * 8 + k * step >= c.a.E) break;
            widen(x[k], t.x, z[k]);
            if (c.a.residual) {
                float added[8];
                widen(residual[k], t.residual, added);
#pragma unroll
                for (int j = 0; j < 8; j++) z[k][j] += added[j];
            }
#pragma unroll
            for (int j = 0; j < 8; j++) sums.x += z[k][j];
        }
        if (c.a.norm == TFI_NORM_LAYER) mean = warp_sum(sums.x) / (float)c.a.E;
        sums.x = 0;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            if (lane * 8 + k * step >= c.a.E) break;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                z[k][j] -= mean;
                sums.x += z[k][j];
                sums.y += z[k][j] * z[k][j];
            }
        }
        const norm_statistics s = statistics_of(c.a, make_float2(warp_sum(sums.x), warp_sum(sums.y)));
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            const int i = lane * 8 + k * step;
            float gain[8], bias[8] = {};
            if (i >= c.a.E) break;
            load<8>(c.a.gain, TFI_F32, i, gain);
            if (c.a.bias) load<8>(c.a.bias, TFI_F32, i, bias);
#pragma unroll
            for (int j = 0; j < 8; j++) z[k][j] = (z[k][j] - s.shift) * s.factor * gain[j] + bias[j];
            if (turn == 1) store(c.a.y, t.y, row + i, z[k]);
        }
    }
}

template <int V>
__device__ void load_sum(const norm_call &c, int64_t source, int64_t row, int64_t i, float (&z)[V])
{
    load<V>(c.a.x, c.t.x, source + i, z);
    if (c.a.residual) {
        float added[V];
        load<V>(c.a.residual, c.t.residual, row + i, added);
#pragma unroll
        for (int j = 0; j < V; j++) z[j] += added[j];
    }
}

template <int V>
__global__ void __launch_bounds__(256) norm_any(norm_call c)
{
    begin();
    __shared__ float2 first[WARPS_MAX], second[WARPS_MAX];
    const int64_t row = (int64_t)blockIdx.x * c.a.E, begin = (int64_t)threadIdx.x * V, step = (int64_t)blockDim.x * V;
    float2 sums = make_float2(0, 0);
    float mean = 0, z[V];

    if (blockIdx.x >= c.live->rows[c.rows]) return;
    const int64_t source = source_of(c, blockIdx.x, true);
    if (c.a.norm == TFI_NORM_LAYER) {
        for (int64_t i = begin; i < c.a.E; i += step) {
            load_sum<V>(c, source, row, i, z);
            for (int j = 0; j < V; j++) sums.x += z[j];
        }
        mean = block_sum(sums, first).x / (float)c.a.E;
        sums = make_float2(0, 0);
    }
    for (int64_t i = begin; i < c.a.E; i += step) {
        load_sum<V>(c, source, row, i, z);
        for (int j = 0; j < V; j++) {
            sums.x += z[j] - mean;
            sums.y += (z[j] - mean) * (z[j] - mean);
        }
    }
    const norm_statistics s = statistics_of(c.a, block_sum(sums, second));
    for (int64_t i = begin; i < c.a.E; i += step) {
        load_sum<V>(c, source, row, i, z);
        for (int j = 0; j < V; j++) {
            const float bias = c.a.bias ? c.a.bias[i + j] : 0;
            z[j] = (z[j] - mean - s.shift) * s.factor * c.a.gain[i + j] + bias;
        }
        store(c.a.y, c.t.y, row + i, z);
    }
}

bool is_of(tfi_op_types t, tfi_dtype type, const void *residual)
{
    return t.x == type && t.y == type && (!residual || t.residual == type);
}

template <int TYPE>
tf_status start_rows(const tfi_cuda_launch *l, unsigned rows, const norm_call &c)
{
    const unsigned blocks = blocks_of(rows, BLOCK_ROWS), threads = BLOCK_ROWS * WARP;

    if (c.a.E <= 512) return start(l, "NORM", norm_rows<2, TYPE>, blocks, threads, 0, c);
    if (c.a.E <= 768) return start(l, "NORM", norm_rows<3, TYPE>, blocks, threads, 0, c);
    return start(l, "NORM", norm_rows<4, TYPE>, blocks, threads, 0, c);
}

} // namespace

extern "C" tf_status tfi_cuda_norm(const tfi_cuda_launch *l, const tfi_norm_args *a, tfi_op_types t, tfi_rows rows,
                                   const int32_t *from)
{
    const norm_call c = {*a, t, l->live, rows, from};
    const bool vectors = in_vectors(a->E, a->x, a->residual, a->gain, a->bias, a->y);
    const unsigned R = (unsigned)a->R;

    if (R == 0) return TF_STATUS_OK;
    if (vectors && a->E <= 1024 && R > BLOCK_ROWS * REHEARSED) return start_rows<ANY>(l, R, c);
    if (vectors && a->E <= 1024 && R >= SOME_ROWS) {
        if (is_of(t, TFI_F16, a->residual)) return start_rows<TFI_F16>(l, R, c);
        if (is_of(t, TFI_BF16, a->residual)) return start_rows<TFI_BF16>(l, R, c);
    }
    if (vectors && a->E <= 512) return start(l, "NORM", norm_held<1>, R, 64, 0, c);
    if (vectors && a->E <= 1024) return start(l, "NORM", norm_held<1>, R, 128, 0, c);
    if (vectors && a->E <= 2048) return start(l, "NORM", norm_held<1>, R, 256, 0, c);
    if (vectors && a->E <= 8192) return start(l, "NORM", norm_held<4>, R, 256, 0, c);
    if (vectors) return start(l, "NORM", norm_any<8>, R, 256, 0, c);
    return start(l, "NORM", norm_any<1>, R, 256, 0, c);
}
