/* LINEAR of up to 8 rows, with the norm before it and the activation, gate or residual after it; few_tiles.cu has more rows.
 *
 * Shapes    x [M, K], w [N, K] of one type (F32, BF16, F16), y of any; sums in fp32 (tensor cores for 16 bits, FMA for F32)
 * Parallel  a block takes 8 rows of w at a time (gated: 4 and the 4 of the right half they belong to), its warps a part of K
 *           each. Blocks fill the device once and walk over the rows. The copy engine brings the rows into a ring in shared
 *           memory, one bulk copy a row; the ring is full before the results of the kernel before are waited for, so short
 *           products have their weights by then. Each block norms x for itself. In mma.sync the rows of w are the columns of B
 *           and the rows of x are rows of A: tensor cores are idle anyway, and 1 to 8 rows cost the same. A row's sums do not
 *           depend on how many rows there are.
 * Needs     9.0; rows of a multiple of 64 bytes, 16-byte aligned; rows of x that fit in shared memory; otherwise the matrix
 *           library does it
 * Floor     bytes of w: [2304, 768] in 2 bytes 3.5 MB / 4.3 TB/s = 0.8 us, and in a chain of kernels what follows one another:
 *           the wait, x, the norm, the sums, about 1.2 us */
#include "few.cuh"

namespace
{

enum { WARPS = 8, ROWS = 8, TILE = 8, CHUNK = 64 /* bytes of a row of w that a warp takes at a time */ };

struct stream_call {
    few_call c;
    int part, parts, depth;                    /* bytes of a row of w in a stage of the ring; their number; stages */
    int z_stride, w_stride, stage;             /* bytes from row to row of x and of w, and from stage to stage */
    int z_at, gain_at, statistics_at, ring_at; /* in shared memory, behind the barriers and the warps' sums */
};

/* Barriers of the ring's stages, then that of gain and bias. */
enum { DEPTH_MAX = 7, BARRIERS = DEPTH_MAX + 1, SUMS_AT = BARRIERS * 8 };

/* ---- the copy engine ---- */

__device__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ void open_barriers(uint32_t barriers)
{
#if __CUDA_ARCH__ >= 900
    for (int i = 0; i < BARRIERS; i++) asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barriers + i * 8) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/* So many bytes are under way, of which the barrier will know. */
__device__ void expect(uint32_t barrier, int bytes)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
#endif
}

__device__ void copy(uint32_t to, const void *from, int bytes, uint32_t barrier)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(barrier)
                 : "memory");
#endif
}

__device__ void wait_for_copies(uint32_t barrier, int phase)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n"
                 ".reg .pred there;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared.b64 there, [%0], %1;\n"
                 "@!there bra again;\n"
                 "}\n" ::"r"(barrier),
                 "r"(phase)
                 : "memory");
#endif
}

/* Fills the ring: stage after stage, part after part of a tile's rows, tile after tile. A warp's, of whose lanes the first 8
 * have a row of w each. */
struct supply {
    const stream_call &s;
    uint32_t barriers, ring;
    int bytes, columns, width; /* of a row; of y; of a tile */
    int column, part, stage;   /* next */
    const char *row;

    __device__ void open_tile()
    {
        const int lane = threadIdx.x % WARP, mine = min(column + lane % width, columns - 1);
        row = (const char *)s.c.a.w + (mine + lane / width * (s.c.a.N / 2)) * bytes;
    }

    __device__ void fill()
    {
        const int lane = threadIdx.x % WARP, begin = part * s.part, size = min(s.part, bytes - begin);
        const uint32_t barrier = barriers + stage * 8;

        if (column >= columns) return;
        if (lane == 0) expect(barrier, size * TILE);
        __syncwarp();
        if (lane < TILE) copy(ring + stage * s.stage + lane * s.w_stride, row + begin, size, barrier);
        if (++stage == s.depth) stage = 0;
        if (++part < s.parts) return;
        part = 0;
        column += gridDim.x * width;
        open_tile();
    }
};

/* ---- sums ---- */

/* What a lane adds up: in F32 its part of the sums of its row of w with each row of x; otherwise two C of mma, of which the
 * first 8 rows count in one and the others in the other. */
struct lane_sums {
    float of[2][4];
};

template <tfi_dtype T>
__device__ void multiply(float (&c)[4], const uint4 &a, uint32_t b0, uint32_t b1)
{
#if __CUDA_ARCH__ >= 900
    if constexpr (T == TFI_BF16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
#endif
}

/* 16 bytes of a row of x are kept in the order in which they are mma's A: the lane's elements of its row of x with the first
 * two words of w in rows 0 to 7, with the other two in rows 8 to 15. What A's rows make with the other words is not read. */
__device__ uint4 in_order(const uint4 &x)
{
    return make_uint4(x.x, x.z, x.y, x.w);
}

/* A chunk: w, this lane's 16 bytes of its row, z, in F32 of row 0 of x, else of the lane's. */
template <tfi_dtype T>
__device__ void add_chunk(lane_sums &s, const char *w, const char *z, int z_stride, int rows)
{
    const uint4 b = *(const uint4 *)w;

    if constexpr (T == TFI_F32) {
#pragma unroll
        for (int m = 0; m < ROWS; m++) {
            if (m >= rows) break;
            const float4 x = *(const float4 *)(z + m * z_stride);
            float &sum = s.of[m / 4][m % 4];
            sum += __uint_as_float(b.x) * x.x;
            sum += __uint_as_float(b.y) * x.y;
            sum += __uint_as_float(b.z) * x.z;
            sum += __uint_as_float(b.w) * x.w;
        }
    } else {
        const uint4 a = *(const uint4 *)z;
        multiply<T>(s.of[0], a, b.x, b.y);
        multiply<T>(s.of[1], a, b.z, b.w);
    }
}

/* A warp's sums, [ROWS, TILE]. */
template <tfi_dtype T>
__device__ void put_sums(const lane_sums &s, float *to)
{
    const int lane = threadIdx.x % WARP;

    if constexpr (T == TFI_F32) {
#pragma unroll
        for (int m = 0; m < ROWS; m++) {
            float v = s.of[m / 4][m % 4];
            v += __shfl_xor_sync(0xffffffffu, v, 1);
            v += __shfl_xor_sync(0xffffffffu, v, 2);
            if (lane % 4 == m % 4) to[m * TILE + lane / 4] = v;
        }
    } else {
        *(float2 *)(to + 2 * lane) = make_float2(s.of[0][0] + s.of[1][2], s.of[0][1] + s.of[1][3]);
    }
}

__device__ float total_of(const float *sums)
{
    float total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) total += sums[w * ROWS * TILE];
    return total;
}

/* ---- x ---- */

template <tfi_dtype T>
__device__ void put_row(char *z, int i, const float (&v)[8])
{
    if constexpr (T == TFI_F32) {
        store(z, T, i, v);
    } else {
        uint32_t words[4];
#pragma unroll
        for (int k = 0; k < 4; k++) words[k] = float_to_half(v[2 * k], T) | float_to_half(v[2 * k + 1], T) << 16;
        *(uint4 *)(z + i * 2) = in_order(make_uint4(words[0], words[1], words[2], words[3]));
    }
}

template <tfi_dtype T>
__device__ void stage_rows(const tfi_few_args &a, char *z, int z_stride, int bytes, int rows)
{
    for (int m = 0; m < rows; m++) {
        const char *x = (const char *)a.x + few_source(a, m) * bytes;
#pragma unroll 4
        for (int i = threadIdx.x * 16; i < bytes; i += WARPS * WARP * 16) {
            const uint4 v = *(const uint4 *)(x + i);
            *(uint4 *)(z + m * z_stride + i) = T == TFI_F32 ? v : in_order(v);
        }
    }
}

/* ---- the kernel ---- */

/* What joins a sum and waits for no kernel; `other`: of the right half. */
struct addends {
    float bias, other;
};

__device__ addends load_addends(const tfi_few_args &a, int n, bool inside)
{
    addends v = {0, 0};
    if (inside) v = {few_bias(a, n), a.gated ? few_bias(a, n + a.N / 2) : 0};
    return v;
}

template <tfi_dtype T, bool NORMED>
__global__ void __launch_bounds__(WARPS *WARP, 3) stream(stream_call s)
{
    extern __shared__ __align__(128) char shared[];
    follow();
    const tfi_few_args &a = s.c.a;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, bytes = (int)a.K * element_size(T);
    const int columns = (int)few_columns(a), width = a.gated ? TILE / 2 : TILE;
    const uint32_t barriers = shared_address(shared), gain_barrier = barriers + DEPTH_MAX * 8;
    float *gain = (float *)(shared + s.gain_at);
    char *z = shared + s.z_at;
    supply more = {s, barriers, shared_address(shared + s.ring_at), bytes, columns, width, (int)blockIdx.x * width, 0, 0, NULL};

    if (warp == WARPS - 1) {
        if (lane == 0) {
            open_barriers(barriers);
            if (NORMED) {
                expect(gain_barrier, (int)a.K * (a.norm.bias ? 8 : 4));
                copy(shared_address(gain), a.norm.gain, (int)a.K * 4, gain_barrier);
                if (a.norm.bias) copy(shared_address(gain + a.K), a.norm.bias, (int)a.K * 4, gain_barrier);
            }
        }
        __syncwarp();
        more.open_tile();
#pragma unroll 1
        for (int i = 0; i < s.depth; i++) more.fill();
    }
    /* Thread (m, column of a tile) takes a sum to y. */
    const int m = a.gated ? threadIdx.x / (TILE / 2) : threadIdx.x / TILE, rows = few_live(s.c);
    int n = blockIdx.x * width + threadIdx.x % width;
    addends add = load_addends(a, n, m < ROWS && n < columns);
    __syncthreads(); /* the barriers are open */

    wait_for_results();
    if constexpr (NORMED) {
        few_norm(
            a, gain, a.norm.bias ? gain + a.K : NULL, rows, (few_statistics *)(shared + s.statistics_at),
            [=] { wait_for_copies(gain_barrier, 0); },
            [&](int row, int i, const float(&v)[8]) {
                put_row<T>(z + row * s.z_stride, i, v);
                if (a.norm.y && blockIdx.x == 0) store(a.norm.y, T, row * a.K + i, v);
            });
    } else {
        stage_rows<T>(a, z, s.z_stride, bytes, rows);
    }
    float residual = m < rows && n < columns ? few_residual(a, m, n) : 0;
    __syncthreads();

    const char *w_lane = shared + s.ring_at + lane / 4 * s.w_stride + lane % 4 * 16;
    const char *z_lane = z + lane % 4 * 16 + (T == TFI_F32 ? 0 : min(lane / 4, max(rows, 1) - 1) * s.z_stride);
    float *sums = (float *)(shared + SUMS_AT);
    for (int first = blockIdx.x * width, stage = 0, phase = 0, odd = 0; first < columns; first += gridDim.x * width, odd ^= 1) {
        lane_sums sum = {};

        for (int begin = 0; begin < bytes; begin += s.part) {
            const int chunks = min(s.part, bytes - begin) / CHUNK, from = chunks * warp / WARPS * CHUNK;
            const char *w_at = w_lane + stage * s.stage, *z_at = z_lane + begin;
            wait_for_copies(barriers + stage * 8, phase);
#pragma unroll 4
            for (int at = from; at < chunks * (warp + 1) / WARPS * CHUNK; at += CHUNK)
                add_chunk<T>(sum, w_at + at, z_at + at, s.z_stride, rows);
            if (begin + s.part >= bytes) put_sums<T>(sum, sums + (odd * WARPS + warp) * ROWS * TILE);
            __syncthreads();
            if (warp == WARPS - 1) more.fill();
            if (++stage == s.depth) {
                stage = 0;
                phase ^= 1;
            }
        }
        if (m < rows && n < columns) {
            const float *mine = sums + odd * WARPS * ROWS * TILE + m * TILE + threadIdx.x % width;
            const float other = a.gated ? total_of(mine + TILE / 2) + add.other : 0;
            few_store(a, m, n, total_of(mine) + add.bias, other, residual);
        }
        n += gridDim.x * width;
        add = load_addends(a, n, m < ROWS && n < columns);
        residual = m < rows && n < columns ? few_residual(a, m, n) : 0;
    }
    if (NORMED) wait_for_copies(gain_barrier, 0); /* where no row lives, nobody has */
}

/* ---- host ---- */

enum { BLOCKS = 2, RING = 48 * 1024, PART = 3200 };

int64_t aligned(int64_t bytes)
{
    return (bytes + 127) / 128 * 128;
}

/* Rows whose neighbours lie in different banks. */
int64_t stride_of(int64_t bytes)
{
    return aligned(bytes) + CHUNK;
}

/* Where everything lies; bytes of shared memory. */
int64_t lay_out(const tfi_few_args *a, stream_call *s)
{
    const int64_t bytes = a->K * (a->type == TFI_F32 ? 4 : 2), chunks = bytes / CHUNK;
    int64_t at = SUMS_AT + 2 * WARPS * ROWS * TILE * (int64_t)sizeof(float);

    s->parts = (int)((bytes + PART - 1) / PART);
    s->part = (int)((chunks + s->parts - 1) / s->parts * CHUNK);
    s->w_stride = (int)stride_of(s->part);
    s->stage = TILE * s->w_stride;
    s->depth = RING / s->stage < DEPTH_MAX ? RING / s->stage : DEPTH_MAX;
    s->z_stride = (int)stride_of(bytes);
    s->z_at = (int)at;
    at += aligned(a->M * s->z_stride);
    s->gain_at = (int)at;
    if (a->norm.gain) at += aligned(2 * a->K * (int64_t)sizeof(float));
    s->statistics_at = (int)at;
    if (a->norm.gain) at += aligned(few_norm_bytes(a->M));
    s->ring_at = (int)at;
    return at + s->depth * s->stage;
}

template <tfi_dtype T, bool NORMED>
tf_status launch(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    const auto kernel = stream<T, NORMED>;
    stream_call s = {{*a, l->live, rows}};
    const int64_t bytes = lay_out(a, &s), columns = few_columns(*a), width = a->gated ? TILE / 2 : TILE;
    const int64_t tiles = (columns + width - 1) / width, most = BLOCKS * (int64_t)l->multiprocessors;

    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    return start(l, "LINEAR", kernel, dim3((unsigned)(tiles < most ? tiles : most)), WARPS * WARP, (size_t)bytes, s);
}

template <tfi_dtype T>
tf_status launch_typed(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    return a->norm.gain ? launch<T, true>(l, a, rows) : launch<T, false>(l, a, rows);
}

bool fits(const tfi_few_args *a, int capability)
{
    const bool normed = a->norm.gain != NULL;
    const int64_t chunk = a->type == TFI_F32 ? CHUNK / 4 : CHUNK / 2, most = (capability / 10 == 12 ? 99 : 227) * 1024;
    stream_call s;

    if (a->M > ROWS || capability < 90 || a->type > TFI_F16 || a->out > TFI_F16 || (a->gated && a->N % 2)) return false;
    if (a->K < 1 || a->K % chunk || !in_vectors(a->K, a->w, normed ? NULL : a->x)) return false;
    if (normed &&
        (a->K > FEW_NORM_MAX || !in_vectors(a->K, a->norm.x, a->norm.residual, a->norm.gain, a->norm.bias, a->norm.y)))
        return false;
    return lay_out(a, &s) <= most;
}

} // namespace

extern "C" int tfi_cuda_few_fits(const tfi_few_args *a, int capability)
{
    return fits(a, capability) || tfi_few_tiles_fits(a, capability);
}

extern "C" tf_status tfi_cuda_few(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    if (a->M == 0 || a->N == 0) return TF_STATUS_OK;
    if (!fits(a, l->capability)) return tfi_cuda_few_tiles(l, a, rows);
    return a->type == TFI_F32    ? launch_typed<TFI_F32>(l, a, rows)
           : a->type == TFI_BF16 ? launch_typed<TFI_BF16>(l, a, rows)
                                 : launch_typed<TFI_F16>(l, a, rows);
}
