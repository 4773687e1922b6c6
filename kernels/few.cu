/* LINEAR of up to 8 rows, with the norm before it and the activation, gate or residual after it; few_tiles.cu has more rows.
 *
 * Shapes    x [M, K], w [N, K] of one type (F32, BF16, F16), y of any; sums in fp32 (tensor cores for 16 bits, FMA for F32)
 * Parallel  a block takes 8 rows of w at a time (gated: 4 and the 4 of the right half they belong to), its warps a part of K
 *           each. Blocks fill the device once and walk over the rows. The copy engine brings the rows into a ring in shared
 *           memory, one bulk copy a row; the ring is full before the results of the kernel before are waited for, so short
 *           products have their weights by then. Each block norms x for itself. In mma.sync the rows of w are the columns of B
 *           and the rows of x are rows of A: tensor cores are idle anyway, and 1 to 8 rows cost the same. A row's sums do not
 *           depend on how many rows there are.
 * Needs     9.0; rows of a multiple of 64 bytes, 16-byte aligned; rows of x that fit in shared memory; with a norm up to 2 rows
 *           of 2048 columns, in F32 or the type of w. Otherwise few_tiles.cu or the matrix library does it
 * Floor     bytes of w: [2304, 768] in 2 bytes 3.5 MB / 4.3 TB/s = 0.8 us, and in a chain of kernels what follows one another:
 *           the wait, x, the norm, the sums, about 1.2 us. A kernel that only passes a word on takes 0.7 to 0.8 us in a chain.
 * Measured  on an H200, F16, chains of one product over rotating weights, 1 row: GPT-2's with norm [2304, 768] 3.1 us,
 *           [3072, 768] 3.3, without [768, 768] 2.1, [768, 3072] 2.7, its head 20 (3.8 TB/s); XL [4800, 1600] 6.0,
 *           [6400, 1600] 7.3, [1600, 6400] 8.6; T5-3B [16384, 1024] 10.1 (3.3 TB/s). 4 rows: [2304, 768] 2.9, [768, 768] 2.1,
 *           [768, 3072] 2.8. Time goes to the instructions between the wait and the end, about 5 cycles each, not to bytes.
 *           A layer of T5-base's decoder for 4 beams, in a chain of layers: 23.9 us. It was 28.7: norms of 3 and 4 rows as
 *           kernels of their own are 2.8 of the difference, places of x that are known ahead of the wait, all of x asked for at
 *           once 0.5, more registers 1.0, weights that leave the cache first 0.2 (without the others 0.8), the next kernel at
 *           once and a third block 0.3. What comes once a step finds its instructions in the cache then.
 * Lost      cp.async by each lane: 1 to 2 us more where blocks have several tiles. The norm after the sums, from sums of w gain
 *           and w bias: then each warp needs all of x, and 8 lanes of it the same. Weights beyond the ring prefetched to the
 *           cache: the heads 2 us slower. Deeper rings: rows of x queue behind them. A switch's table: 0.3 us from memory.
 *           Norms of 4 rows here, side by side: 1 us more a layer than in front. Those rows by few_wgmma.cu: 0.4 to 2 us. The
 *           proxy fence by all who have loaded, not by the warp that fills: 0.02 to 0.15 us */
#include "few.cuh"

namespace
{

enum { WARPS = 8, ROWS = 8, TILE = 8, CHUNK = 64 /* bytes of a row of w that a warp takes at a time */ };

/* Rows that a norm here costs less than one in front would; columns up to which the next kernel may come at once: its copies
 * then are in the way of longer rows of x. */
enum { NORMED_ROWS = 2, EARLY = 1024 };

struct stream_call {
    few_call c;
    int part, parts, depth;        /* bytes of a row of w in a stage of the ring; their number; stages */
    int z_stride, w_stride, stage; /* bytes from row to row of x and of w, and from stage to stage */
    int z_at, gain_at, ring_at;    /* in shared memory, behind what always is where it is */
};

/* Barriers of the ring's stages, then that of gain and bias; the warps' sums of two tiles; their statistics of two rounds. */
enum {
    DEPTH_MAX = 7,
    BARRIERS = DEPTH_MAX + 1,
    SUMS_AT = BARRIERS * 8,
    STATISTICS_AT = SUMS_AT + 2 * WARPS * ROWS * TILE * 4,
    FREE_AT = STATISTICS_AT + 2 * WARPS * 8
};

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

/* Of what is read once a step: it goes from the cache of the device before anything else does. */
__device__ void copy(uint32_t to, const void *from, int bytes, uint32_t barrier)
{
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{\n"
        ".reg .b64 policy;\n"
        "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], policy;\n"
        "}\n" ::"r"(to),
        "l"(from), "r"(bytes), "r"(barrier)
        : "memory");
#endif
}

/* Loads of shared memory that come before, also those of threads that were met since, are over when copies begin. */
__device__ void before_copies()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
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

/* Fills the ring: stage after stage, part after part of a tile's rows, tile after tile. Whole rows that follow one another are
 * one copy, otherwise each is one: so many lanes of the warp that fills. */
struct supply {
    const stream_call &s;
    uint32_t barriers, ring;
    int bytes, columns, width; /* of a row; of y; of a tile */
    int column, part, stage;   /* next */
    const char *row;           /* of w, this lane's */

    __device__ int rows_of_copy() const
    {
        return s.parts == 1 ? width : 1;
    }

    __device__ void open_tile()
    {
        const int first = threadIdx.x % WARP * rows_of_copy(), mine = min(column + first % width, columns - 1);
        row = (const char *)s.c.a.w + (mine + first / width * (s.c.a.N / 2)) * bytes;
    }

    /* again: of what the stage had, all threads of the block have read theirs. */
    __device__ void fill(bool again)
    {
        const int lane = threadIdx.x % WARP, rows = rows_of_copy(), begin = part * s.part, size = min(s.part, bytes - begin);
        const int whole = rows == 1 ? size : min(rows, columns - column) * size, copies = TILE / rows;
        const uint32_t barrier = barriers + stage * 8;

        if (column >= columns) return;
        if (again) before_copies();
        if (lane == 0) expect(barrier, whole * copies);
        __syncwarp();
        if (lane < copies) copy(ring + stage * s.stage + lane * rows * s.w_stride, row + begin, whole, barrier);
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

/* Rows of x on their way to shared memory, 16 bytes at a time. A thread knows where its first ones go before they are there. */
template <tfi_dtype T>
struct staging {
    enum { HELD = 6, ROUND = HELD * WARPS * WARP * 16 };
    const tfi_few_args &a;
    int z_stride, bytes, rows, m, i, left;
    uint32_t from[HELD]; /* in 16 bytes of x */
    int to[HELD];        /* -1: nowhere */

    __device__ staging(const tfi_few_args &args, int stride, int row_bytes, int count)
        : a(args), z_stride(stride), bytes(row_bytes), rows(count), m(0), i((int)threadIdx.x * 16), left(count * row_bytes)
    {
        place();
    }
    __device__ void place()
    {
#pragma unroll
        for (int k = 0; k < HELD; k++) {
            for (; m < rows && i >= bytes; i -= bytes) m++;
            to[k] = m < rows ? m * z_stride + i : -1;
            from[k] = m < rows ? (uint32_t)((few_source(a, m) * bytes + i) / 16) : 0;
            asm volatile("" : "+r"(to[k]), "+r"(from[k])); /* computed now, not when they are needed */
            i += WARPS * WARP * 16;
        }
    }
    __device__ void copy(char *z)
    {
        for (;;) {
            uint4 v[HELD];
#pragma unroll
            for (int k = 0; k < HELD; k++)
                if (to[k] >= 0) v[k] = ((const uint4 *)a.x)[from[k]];
#pragma unroll
            for (int k = 0; k < HELD; k++)
                if (to[k] >= 0) *(uint4 *)(z + to[k]) = T == TFI_F32 ? v[k] : in_order(v[k]);
            left -= ROUND;
            if (left <= 0) return;
            place();
        }
    }
};

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

/* Elements of norm.x and norm.residual. */
struct eight {
    raw_elements<8> x, residual;
};

__device__ eight load_eight(const tfi_norm_args &n, tfi_dtype t, int64_t at)
{
    eight e = {};
    e.x = load_raw<8>(n.x, t, at);
    if (n.residual) e.residual = load_raw<8>(n.residual, t, at);
    return e;
}

__device__ void widen_eight(const tfi_norm_args &n, const eight &e, tfi_dtype t, float (&v)[8])
{
    widen(e.x, t, v);
    if (!n.residual) return;
    float added[8];
    widen(e.residual, t, added);
#pragma unroll
    for (int k = 0; k < 8; k++) v[k] += added[k];
}

/* Of `team` warps. */
__device__ float2 total_of(const float2 *statistics, int team)
{
    const float4 *all = (const float4 *)statistics, a = all[0], b = all[1];
    float2 d = make_float2(a.x + a.z + b.x + b.z, a.y + a.w + b.y + b.w);

    if (team == 4) return d;
    const float4 e = all[2], f = all[3];
    return make_float2(d.x + e.x + e.z + f.x + f.z, d.y + e.y + e.w + f.y + f.w);
}

/* Warps that share a row: a function of K alone. */
__device__ int norm_team(int K)
{
    return K <= 4 * WARP * 8 ? 4 : 8;
}

/* x, in X, normed. A lane has 8 elements, and the order of the sums depends on K alone. Sums are taken of
 * differences to the mean of the row's first elements, which is as good as the mean of all: x is read once, lanes meet once,
 * and a mean of 10,000 deviations costs no digits. One block writes norm.y too: others still read, so norm.y must be neither
 * norm.x nor norm.residual. */
template <tfi_dtype T, tfi_dtype X>
__device__ void norm_rows(const stream_call &s, char *shared, int rows, uint32_t gain_barrier, int64_t at)
{
    const tfi_few_args &a = s.c.a;
    const int K = (int)a.K, warp = threadIdx.x / WARP, team = norm_team(K), mate = warp % team;
    const int i = (mate * WARP + threadIdx.x % WARP) * 8;
    const float *gain = (const float *)(shared + s.gain_at), share = __fdividef(1, (float)K);
    const bool layer = a.norm.norm == TFI_NORM_LAYER;
    float2 *statistics = (float2 *)(shared + STATISTICS_AT) + warp - mate;

    for (int m = warp / team, first = 0; first < rows; m += WARPS / team, first += WARPS / team) {
        float v[8] = {}, near = 0;
        float2 d = make_float2(0, 0);

        if (m < rows) {
            const int64_t row = first == 0 ? at : few_source(a, m) * K;
            const eight x = load_eight(a.norm, X, row + (i < K ? i : 0)), first_of_row = load_eight(a.norm, X, row);
            float some[8];
            widen_eight(a.norm, first_of_row, X, some);
            widen_eight(a.norm, x, X, v);
#pragma unroll
            for (int k = 0; k < 8; k++) near += layer ? some[k] * 0.125f : 0;
        }
        if (i < K) {
#pragma unroll
            for (int k = 0; k < 8; k++) {
                v[k] -= near;
                d.x += v[k];
                d.y += v[k] * v[k];
            }
        }
        d = make_float2(warp_sum(d.x), warp_sum(d.y));
        if (threadIdx.x % WARP == 0) statistics[mate] = d;
        wait_for_copies(gain_barrier, 0);
        __syncthreads();
        d = total_of(statistics, team);
        statistics += statistics < (float2 *)(shared + STATISTICS_AT) + WARPS ? WARPS : -WARPS;
        const float shift = layer ? d.x * share : 0, variance = fmaxf(d.y * share - shift * shift, 0); /* which loses a NaN */
        const float factor = isnan(d.y) ? d.y : rsqrtf(variance + a.norm.eps);
        if (m >= rows || i >= K) continue;
        float g[8], b[8] = {};
        load<8>(gain, TFI_F32, i, g);
        if (a.norm.bias) load<8>(gain + K, TFI_F32, i, b);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = (v[k] - shift) * factor * g[k] + b[k];
        put_row<T>(shared + s.z_at + m * s.z_stride, i, v);
        if (a.norm.y && blockIdx.x == 0) store(a.norm.y, T, (int64_t)m * K + i, v);
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

__device__ raw_elements<1> load_residual(const tfi_few_args &a, int m, int n, bool inside)
{
    raw_elements<1> v = {0};
    if (a.residual && inside) v = load_raw<1>(a.residual, a.out, m * a.N + n);
    return v;
}

/* X: the type of the norm's x, TFI_DTYPE_COUNT where there is no norm. */
template <tfi_dtype T, tfi_dtype X>
__global__ void __launch_bounds__(WARPS *WARP, 3) stream(stream_call s)
{
    constexpr bool NORMED = X != TFI_DTYPE_COUNT;
    extern __shared__ __align__(128) char shared[];
    const tfi_few_args &a = s.c.a;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, bytes = (int)a.K * element_size(T);
    const int columns = (int)few_columns(a), width = a.gated ? TILE / 2 : TILE;
    const uint32_t barriers = shared_address(shared), gain_barrier = barriers + DEPTH_MAX * 8;
    supply more = {s, barriers, shared_address(shared + s.ring_at), bytes, columns, width, (int)blockIdx.x * width, 0, 0, NULL};
    const bool early = a.K <= EARLY;

    if (early) follow();
    if (warp == WARPS - 1 && lane == 0) open_barriers(barriers);
    __syncthreads();
    if (warp == WARPS - 1) {
        more.open_tile();
#pragma unroll 1
        for (int i = 0; i < s.depth; i++) more.fill(false);
        if (NORMED && lane == 0) {
            const uint32_t gain = shared_address(shared + s.gain_at);
            expect(gain_barrier, (int)a.K * (a.norm.bias ? 8 : 4));
            copy(gain, a.norm.gain, (int)a.K * 4, gain_barrier);
            if (a.norm.bias) copy(gain + (int)a.K * 4, a.norm.bias, (int)a.K * 4, gain_barrier);
        }
    }
    /* Thread (m, column of a tile) takes a sum to y. */
    const int m = a.gated ? threadIdx.x / (TILE / 2) : threadIdx.x / TILE, rows = few_live(s.c);
    int n = blockIdx.x * width + threadIdx.x % width;
    addends add = load_addends(a, n, m < ROWS && n < columns);
    int64_t at = NORMED ? few_source(a, min(warp / norm_team((int)a.K), (int)a.M - 1)) * a.K : 0;
    int w = s.ring_at + lane / 4 * s.w_stride + lane % 4 * 16;
    int z = s.z_at + lane % 4 * 16 + (T == TFI_F32 ? 0 : min(lane / 4, max(rows, 1) - 1) * s.z_stride);
    const int whole = s.part / CHUNK;
    int from = whole * warp / WARPS * CHUNK, to = whole * (warp + 1) / WARPS * CHUNK;
    asm volatile("" : "+l"(at), "+r"(w), "+r"(z), "+r"(from), "+r"(to)); /* computed now, not when they are needed */

    raw_elements<1> residual;
    if constexpr (NORMED) {
        wait_for_results();
        if (!early) follow();
        norm_rows<T, X>(s, shared, rows, gain_barrier, at);
        residual = load_residual(a, m, n, m < rows && n < columns);
    } else {
        staging<T> x(a, s.z_stride, bytes, rows);
        wait_for_results();
        if (!early) follow();
        residual = load_residual(a, m, n, m < rows && n < columns);
        x.copy(shared + s.z_at);
    }
    __syncthreads();

    float *sums = (float *)(shared + SUMS_AT);
    for (int first = blockIdx.x * width, stage = 0, phase = 0, odd = 0; first < columns; first += gridDim.x * width, odd ^= 1) {
        lane_sums sum = {};

        for (int begin = 0; begin < bytes; begin += s.part) {
            if (begin + s.part > bytes) { /* the last part is shorter */
                const int chunks = (bytes - begin) / CHUNK;
                from = chunks * warp / WARPS * CHUNK;
                to = chunks * (warp + 1) / WARPS * CHUNK;
            }
            const char *w_at = shared + w + stage * s.stage, *z_at = shared + z + begin;
            wait_for_copies(barriers + stage * 8, phase);
#pragma unroll 4
            for (int i = from; i < to; i += CHUNK) add_chunk<T>(sum, w_at + i, z_at + i, s.z_stride, rows);
            if (begin + s.part >= bytes) put_sums<T>(sum, sums + (odd * WARPS + warp) * ROWS * TILE);
            __syncthreads();
            if (warp == WARPS - 1) more.fill(true);
            if (++stage == s.depth) {
                stage = 0;
                phase ^= 1;
            }
        }
        if (m < rows && n < columns) {
            const float *mine = sums + odd * WARPS * ROWS * TILE + m * TILE + threadIdx.x % width;
            const float other = a.gated ? total_of(mine + TILE / 2) + add.other : 0;
            float joins[1];
            widen(residual, a.out, joins);
            few_store(a, m, n, total_of(mine) + add.bias, other, joins[0]);
        }
        if (s.parts > 1) {
            from = whole * warp / WARPS * CHUNK;
            to = whole * (warp + 1) / WARPS * CHUNK;
        }
        n += gridDim.x * width;
        add = load_addends(a, n, m < ROWS && n < columns);
        residual = load_residual(a, m, n, m < rows && n < columns);
    }
    if (NORMED) wait_for_copies(gain_barrier, 0); /* where no row lives, nobody has */
}

/* ---- host ---- */

enum { FEWER_ROWS = 4, RING = 44 * 1024, PART = 3200, ONE_PART = 8192, SINGLE = 132 * TILE, COLUMNS_MAX = WARPS * WARP * 8 };

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
    int64_t at = aligned(FREE_AT);

    /* Where a block has no second tile, its first comes as a whole. */
    const int64_t part = few_columns(*a) <= SINGLE && !a->gated && bytes <= ONE_PART ? ONE_PART : PART;

    s->parts = (int)((bytes + part - 1) / part);
    s->part = (int)((chunks + s->parts - 1) / s->parts * CHUNK);
    s->w_stride = s->parts == 1 ? s->part : (int)stride_of(s->part);
    s->stage = (int)aligned(TILE * s->w_stride);
    s->depth = (int)(RING / s->stage < DEPTH_MAX ? RING / s->stage : DEPTH_MAX);
    if (s->depth < 2) s->depth = part == PART ? 2 : 1;
    s->z_stride = (int)stride_of(bytes);
    s->z_at = (int)at;
    at = aligned(at + a->M * s->z_stride);
    s->gain_at = (int)at;
    if (a->norm.gain) at = aligned(at + 2 * a->K * (int64_t)sizeof(float));
    s->ring_at = (int)at;
    return at + s->depth * s->stage;
}

/* Two a multiprocessor; three where that saves a second round and each has few rows of x to make ready. */
int64_t blocks_for(const tfi_cuda_launch *l, int64_t M, int64_t tiles)
{
    const int64_t each = M <= FEWER_ROWS && tiles <= 3 * (int64_t)l->multiprocessors ? 3 : 2, most = each * l->multiprocessors;
    return tiles < most ? tiles : most;
}

template <tfi_dtype T, tfi_dtype X>
tf_status launch(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    const auto kernel = stream<T, X>;
    stream_call s = {{*a, l->live, rows}};
    const int64_t bytes = lay_out(a, &s), columns = few_columns(*a), width = a->gated ? TILE / 2 : TILE;
    const int64_t blocks = blocks_for(l, a->M, (columns + width - 1) / width);

    (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    return start(l, "LINEAR", kernel, dim3((unsigned)blocks), WARPS * WARP, (size_t)bytes, s);
}

template <tfi_dtype T>
tf_status launch_typed(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    if (!a->norm.gain) return launch<T, TFI_DTYPE_COUNT>(l, a, rows);
    return a->norm_x == TFI_F32 ? launch<T, TFI_F32>(l, a, rows) : launch<T, T>(l, a, rows);
}

bool fits_normed(const tfi_few_args *a)
{
    const tfi_norm_args *n = &a->norm;

    return a->M <= NORMED_ROWS && (a->norm_x == TFI_F32 || a->norm_x == a->type) &&
           (!n->residual || a->norm_residual == a->norm_x) && a->K <= COLUMNS_MAX &&
           in_vectors(a->K, n->x, n->residual, n->gain, n->bias, n->y);
}

bool fits(const tfi_few_args *a, int capability)
{
    const int64_t chunk = a->type == TFI_F32 ? CHUNK / 4 : CHUNK / 2, most = (capability / 10 == 12 ? 99 : 227) * 1024;
    stream_call s;

    if (a->M > ROWS || capability < 90 || a->type > TFI_F16 || a->out > TFI_F16 || (a->gated && a->N % 2)) return false;
    if (a->K < 1 || a->K % chunk || !in_vectors(a->K, a->w)) return false;
    if (a->norm.gain ? !fits_normed(a) : !in_vectors(a->K, a->x)) return false;
    return lay_out(a, &s) <= most;
}

} // namespace

extern "C" int tfi_cuda_few_fits(const tfi_few_args *a, int capability)
{
    return fits(a, capability) || tfi_few_tiles_fits(a, capability);
}

extern "C" int64_t tfi_cuda_few_parts(const tfi_cuda_launch *l, const tfi_few_args *a)
{
    if (a->M == 0 || fits(a, l->capability) || !tfi_few_wgmma_fits(a, l->capability)) return 0;
    return tfi_few_wgmma_parts(a, l->multiprocessors);
}

extern "C" tf_status tfi_cuda_few(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    if (a->M == 0 || a->N == 0) return TF_STATUS_OK;
    if (!fits(a, l->capability)) return tfi_cuda_few_tiles(l, a, rows);
    return a->type == TFI_F32    ? launch_typed<TFI_F32>(l, a, rows)
           : a->type == TFI_BF16 ? launch_typed<TFI_BF16>(l, a, rows)
                                 : launch_typed<TFI_F16>(l, a, rows);
}
