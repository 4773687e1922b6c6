/* Attention of tiles of rows on tensor cores; what it computes: src/backend/ref/attention.c
 *
 * Shapes    x [R, x_stride] in BF16 or F16, keys and values in x or in a store of the same type, y in any type; D up to 256,
 *           padded with zeros to 32, 64, 128 or 256 in shared memory; scores, softmax and sums in fp32
 * Parallel  a block of 4 warps for each (tile of 64 or 128 rows, head); a warp has 16 or 32 of the rows and keeps their queries
 *           (up to D = 128), scores and sums in registers: mma.sync m16n8k16, or two m16n8k8 on 7.5. Keys and values come in
 *           tiles of 64 (32 from D = 129 on) by cp.async: a tile's values while its scores are made, the next keys while its
 *           values are weighted; several blocks on a multiprocessor cover the rest. Tiles of 128 rows halve the shared memory
 *           traffic a product; they are taken up to D = 64 where they still fill the device.
 * Needs     D % 8 == 0, x_stride % 8 == 0 and 16-byte aligned buffers; otherwise tiles are read element by element
 * Floor     4*D*H flop a (row, key): BERT-base 128x384 is 58 GFLOP, 74 us at 790 TFLOP/s. On 9.0 it reaches 142 TFLOP/s and
 *           attention_wgmma.cu 342, which leaves it D > 128 and what is not aligned there */
#include "attention_tile.cuh"

namespace
{

enum { WARPS = 4, THREADS = WARPS * WARP, PAD = 8 };

template <int SIZE, int TILES>
struct tile_shape {
    static constexpr int rows = WARPS * 16 * TILES, keys = SIZE <= 128 ? 64 : 32, stride = SIZE + PAD; /* no bank conflicts */
    static constexpr int elements = (rows + 2 * keys) * stride;
};

/* Whether a warp's queries stay in its registers. */
template <int SIZE>
constexpr bool queries_stay = SIZE <= 128;

/* ---- instructions ---- */

__device__ void load_matrices(uint32_t (&r)[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ void load_transposed(uint32_t (&r)[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* c += a b: a [16, 16], b [16, 8]. */
template <tfi_dtype T, bool MODERN>
__device__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    if constexpr (!MODERN) {
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(b0));
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[2]), "r"(a[3]), "r"(b1));
    } else if constexpr (T == TFI_BF16) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

/* 16 bytes to shared memory; zeros where `inside` is false, and then nothing is read. */
template <bool MODERN>
__device__ void copy_chunk(uint16_t *to, const uint16_t *from, bool inside)
{
    if constexpr (MODERN) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(inside ? 16 : 0)
                     : "memory");
    } else {
        *(uint4 *)to = inside ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
    }
}

template <bool MODERN>
__device__ void close_group()
{
    if constexpr (MODERN) asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All groups of copies but the youngest are there, for the whole block. */
template <bool MODERN>
__device__ void wait_for_older()
{
    if constexpr (MODERN) asm volatile("cp.async.wait_group 1;" ::: "memory");
    __syncthreads();
}

/* ---- tiles ---- */

/* ROWS rows of a head to shared memory, those from `count` on as zeros; element(row) is where a row begins. */
template <int SIZE, int ROWS, bool MODERN, typename Element>
__device__ void copy_tile(uint16_t *to, const void *base, int64_t count, int D, bool vectors, Element element)
{
    const uint16_t *from = (const uint16_t *)base;

#pragma unroll 4
    for (int i = threadIdx.x; i < ROWS * (SIZE / 8); i += THREADS) {
        const int row = i / (SIZE / 8), d = i % (SIZE / 8) * 8;
        const bool inside = row < count && d < D;
        const uint16_t *at = inside ? from + element(row) + d : from;
        uint16_t *out = to + row * (SIZE + PAD) + d;
        if (vectors) {
            copy_chunk<MODERN>(out, at, inside);
        } else {
            for (int k = 0; k < 8; k++) out[k] = inside && d + k < D ? at[k] : 0;
        }
    }
}

template <tfi_dtype T, int SIZE, int TILES, bool MODERN>
__global__ void __launch_bounds__(THREADS) attention(attention_call c)
{
    begin();
#if __CUDA_ARCH__ >= 800
    constexpr bool compiled = true;
#else
    constexpr bool compiled = !MODERN;
#endif
    if constexpr (compiled) {
        typedef tile_shape<SIZE, TILES> shape;
        constexpr int KEYS = shape::keys, STRIDE = shape::stride, HELD = queries_stay<SIZE> ? SIZE / 16 : 1;
        extern __shared__ uint4 memory[];
        uint16_t *queries = (uint16_t *)memory, *keys = queries + shape::rows * STRIDE, *values = keys + KEYS * STRIDE;
        const int lane = threadIdx.x % WARP, warp_row = threadIdx.x / WARP * 16 * TILES, head = blockIdx.y, D = c.a.D;
        const void *store = c.kv.blocks ? c.kv.blocks : c.a.x;
        uint32_t q[TILES][HELD][4];
        float sums[TILES][SIZE / 8][4] = {};
        row_state state[TILES];
        attention_item item;

        if (!find_item(c, blockIdx.x, shape::rows, &item)) return;
        float *const bias = c.a.bias ? (float *)(values + KEYS * STRIDE) : NULL;
        if (bias) bias_table<KEYS>::stage(c, head, bias);
        const float scale = scales_first(c) ? 1 : c.a.scale * LOG2E;
        const int visible = visible_keys(c, item);
        const auto copy_keys = [&](uint16_t *to, int first, bool value) {
            if (first < visible)
                copy_tile<SIZE, KEYS, MODERN>(to, store, visible - first, D, c.vectors,
                                              [&](int row) { return key_element(c, item, first + row, head, value); });
            close_group<MODERN>();
        };
        copy_tile<SIZE, shape::rows, MODERN>(queries, c.a.x, item.rows, D, c.vectors,
                                             [&](int row) { return query_element(c, item, row, head); });
        copy_keys(keys, 0, false); /* with the queries, one group */

        for (int first = 0; first < visible; first += KEYS) {
            float scores[TILES][KEYS / 8][4] = {};
            copy_keys(values, first, true);
            wait_for_older<MODERN>();
            if (queries_stay<SIZE> && first == 0) {
#pragma unroll
                for (int m = 0; m < TILES; m++) {
#pragma unroll
                    for (int k = 0; k < HELD; k++)
                        load_matrices(q[m][k], queries + (warp_row + m * 16 + lane % 16) * STRIDE + k * 16 + lane / 16 * 8);
                }
            }
#pragma unroll
            for (int k = 0; k < SIZE / 16; k++) {
                if (!queries_stay<SIZE>) {
#pragma unroll
                    for (int m = 0; m < TILES; m++)
                        load_matrices(q[m][0], queries + (warp_row + m * 16 + lane % 16) * STRIDE + k * 16 + lane / 16 * 8);
                }
#pragma unroll
                for (int j = 0; j < KEYS / 16; j++) { /* 16 keys: two products side by side */
                    uint32_t b[4];
                    load_matrices(b, keys + (j * 16 + lane / 16 * 8 + lane % 8) * STRIDE + k * 16 + lane / 8 % 2 * 8);
#pragma unroll
                    for (int m = 0; m < TILES; m++) {
                        const uint32_t(&a)[4] = q[m][queries_stay<SIZE> ? k : 0];
                        multiply<T, MODERN>(scores[m][2 * j], a, b[0], b[1]);
                        multiply<T, MODERN>(scores[m][2 * j + 1], a, b[2], b[3]);
                    }
                }
            }
            __syncthreads(); /* all warps are done with these keys */
            copy_keys(keys, first + KEYS, false);
#pragma unroll
            for (int m = 0; m < TILES; m++) {
                mark_scores<KEYS>(c, bias, first, item.number + warp_row + m * 16, item.keys, scores[m]);
                soften<KEYS, SIZE>(&state[m], scale, scores[m], sums[m]);
            }
            wait_for_older<MODERN>();
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                uint32_t weights[TILES][4];
#pragma unroll
                for (int m = 0; m < TILES; m++) {
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        weights[m][i] = pack<T>(scores[m][2 * j + i / 2][i % 2 * 2], scores[m][2 * j + i / 2][i % 2 * 2 + 1]);
                }
#pragma unroll
                for (int n = 0; n < SIZE / 16; n++) { /* 16 dimensions: two products side by side */
                    uint32_t b[4];
                    load_transposed(b, values + (j * 16 + lane % 16) * STRIDE + n * 16 + lane / 16 * 8);
#pragma unroll
                    for (int m = 0; m < TILES; m++) {
                        multiply<T, MODERN>(sums[m][2 * n], weights[m], b[0], b[1]);
                        multiply<T, MODERN>(sums[m][2 * n + 1], weights[m], b[2], b[3]);
                    }
                }
            }
            __syncthreads(); /* and with these values */
        }
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            meet_lanes(&state[m]);
            write_rows<SIZE>(c, item, head, warp_row + m * 16, 0, state[m].total, sums[m]);
        }
    }
}

/* ---- host ---- */

template <tfi_dtype T, int SIZE, int TILES, bool MODERN>
tf_status launch(const tfi_cuda_launch *l, const attention_call *c)
{
    typedef tile_shape<SIZE, TILES> shape;
    const int bytes = shape::elements * 2 + (c->a.bias ? bias_table<shape::keys>::width(c->a.max_distance) * 4 : 0);
    const dim3 grid((unsigned)(c->a.R / shape::rows + c->a.B), (unsigned)c->a.H);

    if (bytes > 48 * 1024)
        (void)cudaFuncSetAttribute(attention<T, SIZE, TILES, MODERN>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    return start(l, "ATTENTION", attention<T, SIZE, TILES, MODERN>, grid, THREADS, bytes, *c);
}

template <tfi_dtype T, bool MODERN>
tf_status launch_sized(const tfi_cuda_launch *l, const attention_call *c, bool tall)
{
    if (c->a.D > 128) {
        if constexpr (MODERN) return launch<T, 256, 1, MODERN>(l, c);
    }
    if (c->a.D > 64) return launch<T, 128, 1, MODERN>(l, c);
    if constexpr (MODERN) {
        if (tall) return c->a.D > 32 ? launch<T, 64, 2, MODERN>(l, c) : launch<T, 32, 2, MODERN>(l, c);
    }
    return c->a.D > 32 ? launch<T, 64, 1, MODERN>(l, c) : launch<T, 32, 1, MODERN>(l, c);
}

/* Tiles of 128 rows: most of their rows are used, and there are two for each multiprocessor. */
bool tall_tiles_pay(const tfi_cuda_launch *l, const attention_call *c, int64_t max_rows)
{
    return max_rows > 64 && c->a.R >= 96 * c->a.B && c->a.R / 128 * c->a.H >= 2 * l->multiprocessors;
}

} // namespace

tf_status tfi_cuda_attention_mma(const tfi_cuda_launch *l, const attention_call *c, int64_t max_rows)
{
    const bool tall = tall_tiles_pay(l, c, max_rows);
    if (c->t.x == TFI_BF16) return launch_sized<TFI_BF16, true>(l, c, tall);
    return l->capability >= 80 ? launch_sized<TFI_F16, true>(l, c, tall) : launch_sized<TFI_F16, false>(l, c, tall);
}
