/* Attention of tiles of rows in fp32, without tensor cores; what it computes: src/backend/ref/attention.c
 *
 * Shapes    as attention_mma, any mix of types of x, store and y; D padded with zeros to 64, 128 or 256 in shared memory
 * Parallel  a block of 16 x 16 threads for each (tile of 64 rows, of 32 from D = 65 on; head). A thread has 4 (2) rows: 4 (2, 1)
 *           keys of each tile's scores, then D / 16 dimensions of their sums in registers. Keys, then values of a tile lie in
 *           the same shared memory, read 16 bytes at a time; weights go through shared memory.
 * Needs     D % 8 == 0 and 16-byte aligned buffers, otherwise tiles are read element by element
 * Floor     4*D*H flop a (row, key) at 60 TFLOP/s of fp32: BERT-base 1x512 1.6 GFLOP, 27 us; 128x384 58 GFLOP, 0.97 ms */
#include "attention.cuh"

namespace
{

enum { SIDE = 16, THREADS = SIDE * SIDE };

template <int SIZE>
struct tile_shape {
    static constexpr int rows = SIZE <= 64 ? 64 : 32, keys = SIZE <= 64 ? 64 : SIZE <= 128 ? 32 : 16;
    static constexpr int stride = SIZE + 4, weights_stride = keys + 4; /* no bank conflicts between rows */
    static constexpr int bytes = ((rows + keys) * stride + rows * weights_stride) * (int)sizeof(float);
};

__device__ float4 load_four(const void *p, tfi_dtype t, int64_t i)
{
    if (t == TFI_F32) return *(const float4 *)((const float *)p + i);
    const uint2 v = *(const uint2 *)((const uint16_t *)p + i);
    return make_float4(half_to_float(v.x & 0xffff, t), half_to_float(v.x >> 16, t), half_to_float(v.y & 0xffff, t),
                       half_to_float(v.y >> 16, t));
}

/* ROWS rows of a head to shared memory as floats, those from `count` on as zeros. */
template <int SIZE, int ROWS, typename Element>
__device__ void copy_tile(float *to, const void *from, tfi_dtype t, int64_t count, int D, bool vectors, Element element)
{
#pragma unroll 4
    for (int i = threadIdx.x; i < ROWS * (SIZE / 4); i += THREADS) {
        const int row = i / (SIZE / 4), d = i % (SIZE / 4) * 4;
        float4 v = make_float4(0, 0, 0, 0);
        if (row < count && d < D) {
            const int64_t at = element(row) + d;
            if (vectors) {
                v = load_four(from, t, at);
            } else {
                v.x = load_one(from, t, at);
                if (d + 1 < D) v.y = load_one(from, t, at + 1);
                if (d + 2 < D) v.z = load_one(from, t, at + 2);
                if (d + 3 < D) v.w = load_one(from, t, at + 3);
            }
        }
        *(float4 *)(to + row * (SIZE + 4) + d) = v;
    }
}

__device__ float dot(float4 a, float4 b, float sum)
{
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

/* Over the 16 threads that share a row: half a warp. */
__device__ float side_max(float v)
{
#pragma unroll
    for (int i = SIDE / 2; i > 0; i /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, i));
    return v;
}

__device__ float side_sum(float v)
{
#pragma unroll
    for (int i = SIDE / 2; i > 0; i /= 2) v += __shfl_xor_sync(0xffffffffu, v, i);
    return v;
}

template <int SIZE>
__global__ void __launch_bounds__(THREADS) attention(attention_call c)
{
    begin();
    typedef tile_shape<SIZE> shape;
    constexpr int ROWS = shape::rows / SIDE, KEYS = shape::keys / SIDE, GROUPS = SIZE / SIDE / 4, STRIDE = shape::stride;
    extern __shared__ float4 memory[];
    float *queries = (float *)memory, *tile = queries + shape::rows * STRIDE, *weights = tile + shape::keys * STRIDE;
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE * ROWS, head = blockIdx.y, D = c.a.D;
    const void *store_base = c.kv.blocks ? c.kv.blocks : c.a.x;
    const tfi_dtype stored = c.kv.blocks ? c.kv.dtype : c.t.x;
    float max[ROWS], total[ROWS] = {};
    float4 sums[ROWS][GROUPS] = {};
    attention_item item;

    if (!find_item(c, blockIdx.x, shape::rows, &item)) return;
    const float *bias = c.a.bias ? c.a.bias + (int64_t)head * (2 * c.a.max_distance + 1) : NULL;
    const int visible = visible_keys(c, item);
    copy_tile<SIZE, shape::rows>(queries, c.a.x, c.t.x, item.rows, D, c.vectors,
                                 [&](int row) { return query_element(c, item, row, head); });
#pragma unroll
    for (int i = 0; i < ROWS; i++) max[i] = -INFINITY;

    for (int first = 0; first < visible; first += shape::keys) {
        float scores[ROWS][KEYS] = {};
        copy_tile<SIZE, shape::keys>(tile, store_base, stored, visible - first, D, c.vectors,
                                     [&](int row) { return key_element(c, item, first + row, head, false); });
        __syncthreads();
#pragma unroll 4
        for (int d = 0; d < SIZE; d += 4) {
            float4 q[ROWS], k[KEYS];
#pragma unroll
            for (int i = 0; i < ROWS; i++) q[i] = *(const float4 *)(queries + (y + i) * STRIDE + d);
#pragma unroll
            for (int j = 0; j < KEYS; j++) k[j] = *(const float4 *)(tile + (x + j * SIDE) * STRIDE + d);
#pragma unroll
            for (int i = 0; i < ROWS * KEYS; i++)
                scores[i / KEYS][i % KEYS] = dot(q[i / KEYS], k[i % KEYS], scores[i / KEYS][i % KEYS]);
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int query = item.number + y + i, seen = c.causal ? min(item.keys, query + 1) : item.keys;
            float higher = max[i], sum = 0;
#pragma unroll
            for (int j = 0; j < KEYS; j++) {
                const int key = first + x + j * SIDE;
                scores[i][j] *= c.a.scale * LOG2E;
                if (bias) scores[i][j] += bias_at(bias, c.a.max_distance, key - query) * LOG2E;
                if (key >= seen) scores[i][j] = -INFINITY;
                higher = fmaxf(higher, scores[i][j]);
            }
            higher = side_max(higher);
            const float base = higher == -INFINITY ? 0 : higher; /* a row that has seen no key */
            const float factor = exp2f(max[i] - base);
            max[i] = higher;
#pragma unroll
            for (int j = 0; j < KEYS; j++) {
                const float weight = exp2f(scores[i][j] - base);
                weights[(y + i) * shape::weights_stride + x + j * SIDE] = weight;
                sum += weight;
            }
            total[i] = total[i] * factor + sum;
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                sums[i][g].x *= factor;
                sums[i][g].y *= factor;
                sums[i][g].z *= factor;
                sums[i][g].w *= factor;
            }
        }
        __syncthreads(); /* weights are there, the keys have been read */
        copy_tile<SIZE, shape::keys>(tile, store_base, stored, visible - first, D, c.vectors,
                                     [&](int row) { return key_element(c, item, first + row, head, true); });
        __syncthreads();
#pragma unroll 4
        for (int j = 0; j < shape::keys; j++) {
            float weight[ROWS];
#pragma unroll
            for (int i = 0; i < ROWS; i++) weight[i] = weights[(y + i) * shape::weights_stride + j];
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                const float4 v = *(const float4 *)(tile + j * STRIDE + (g * SIDE + x) * 4);
#pragma unroll
                for (int i = 0; i < ROWS; i++) {
                    sums[i][g].x = fmaf(weight[i], v.x, sums[i][g].x);
                    sums[i][g].y = fmaf(weight[i], v.y, sums[i][g].y);
                    sums[i][g].z = fmaf(weight[i], v.z, sums[i][g].z);
                    sums[i][g].w = fmaf(weight[i], v.w, sums[i][g].w);
                }
            }
        }
        __syncthreads(); /* the values have been read */
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const float all = side_sum(total[i]), factor = all == 0 ? 0 : 1 / all; /* no keys: zeros */
        if (y + i >= item.rows) continue;
        const int64_t at = output_element(c, item, y + i, head);
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            const float v[4] = {sums[i][g].x, sums[i][g].y, sums[i][g].z, sums[i][g].w};
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int d = (g * SIDE + x) * 4 + k;
                const float out[1] = {v[k] * factor};
                if (d < D) store(c.a.y, c.t.y, at + d, out);
            }
        }
    }
}

template <int SIZE>
tf_status launch(const tfi_cuda_launch *l, const attention_call *c)
{
    typedef tile_shape<SIZE> shape;
    const dim3 grid((unsigned)(c->a.R / shape::rows + c->a.B), (unsigned)c->a.H);

    if (shape::bytes > 48 * 1024)
        (void)cudaFuncSetAttribute(attention<SIZE>, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::bytes);
    return start(l, "ATTENTION", attention<SIZE>, grid, THREADS, shape::bytes, *c);
}

} // namespace

tf_status tfi_cuda_attention_fma(const tfi_cuda_launch *l, const attention_call *c)
{
    if (c->a.D <= 64) return launch<64>(l, c);
    return c->a.D <= 128 ? launch<128>(l, c) : launch<256>(l, c);
}
