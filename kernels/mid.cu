/* LINEAR of 65 to 512 rows, for latency, with the NORM behind it where one launch can do both:
 * y = act(x w^T + bias) + residual, or the layer norm of that
 *
 * Shapes    x [M, K], w [N, K] of one 16-bit type; bias [N] fp32; residual, y [M, N] of that type or fp32; sums fp32. With a
 *           norm: gain, shift [N] fp32, residual and y of x's type; what the norm gets is not rounded
 * Parallel  a block has 64 or 128 rows and 96 columns, and of K all or, in a cluster, a part: so that most multiprocessors
 *           have a block even where N is small. One thread has the copy engine fill a ring of slices of x and w, 64 columns
 *           each, with as much of w as it holds ahead of the results of the kernel before; a warpgroup for each 64 rows
 *           multiplies; a warp rehearses the end of the tile meanwhile. Blocks of a cluster send each other partial sums: each
 *           finishes some of the tile. With a norm, a cluster of 8 blocks has whole rows (so N is 768 or 1024): blocks tell
 *           each other their columns' mean and squares. Multiprocessors without a tile get a block that only waits.
 * Needs     9.0 exactly (wgmma); K % 8 == 0, N % 8 == 0, 16-byte aligned buffers
 * Floor     M=512, N=3072, K=768: 2.4 GFLOP / 790 TFLOP/s = 3.1 us, and about 1.3 us from kernel to kernel: 0.55 to see the
 *           results of the one before, 0.45 for the first slice of x, the rest for the end. A multiprocessor takes in 64 bytes
 *           a clock: tiles of 128 x 96 over 768 columns are 3.0 us of that
 * Measured  H200, CUDA 13.0, fp16, other weights each time, chains of one kind: 512 x 2304 x 768: 6.1 us, 512 x 3072 x 768
 *           with GELU: 7.5, 512 x 768 x 768 with a norm: 5.5, 512 x 768 x 3072: 9.9. (The matrix library in BERT, 128 rows:
 *           5.2, 7.2, 4.4 without a norm, 10.5.) A layer of BERT-base in a chain of layers, norms included: 512 rows 37.9 us,
 *           384 rows 34.7, 256 rows 31.9. Of that, sums that nobody sets before the first product writes them (nvcc makes
 *           products wait for one another where they are): 1.0 to 1.3 us; ends whose types are known when they are compiled:
 *           0.5; blocks that only wait: 0.7. Before those, rehearsals, rolled loops and shorter attention and norms: 42.1, 38.9
 *           and 36.2.
 * Clocks    of a layer of 512 rows, from the end of the kernel before: results are seen after 0.8 us, the first slices are
 *           there after 1.3, or 2.5 to 3.6 where blocks had no room until then (behind attention, which takes all registers,
 *           and half of those that do GELU). Products take 2.8 us of Q, K and V, 1.8 with the norm, 3.0 with GELU, 4.0 of 3072
 *           columns; ends 1.3, 2.0, 2.0 and 2.6.
 * Tried     512 x 768 x 3072: a block sends 32 KB of parts in 1.2 us; 4 parts 14.1 us: clusters of 4 blocks that fill a
 *           multiprocessor each do not all find room at once (31 of 32), and of blocks with room for two, which have 4 stages,
 *           11.9; the same with a norm in clusters of 16: 20.6, 17 with two blocks on a multiprocessor (7 find room at once);
 *           in clusters of 8 and K in one part 13.8; the matrix library instead: 1 x 512 takes 0.57 ms. Fewer stages so that
 *           the next kernel's blocks have room: a layer 48 to 49 us; 4 stages, 5 with a norm, 48, and no less with attention in
 *           half the registers, which takes 2.4 us more. Blocks of a cluster that share x or w by multicast, 2 to 8 of them:
 *           products take 1 to 3 us longer. Asking for the weights of the next product, or the one after it, early: a layer
 *           46.1 and 46.3 us, where with weights that are in the cache it takes 45.0. Ends of whole tiles by way of shared
 *           memory as fp32: 1.7 us in place of 1.0; lanes that swap columns: 1.6. 192 blocks of 64 x 96: 512 x 2304 x 768 in
 *           7.5 us. Rehearsals by the warps that multiply: blocks that come late are held up by 3.5 us. */
#include "hopper.cuh"

#include "activation.cuh"
#include "types.cuh"

namespace
{

enum { USUAL_WIDTH = 96, SLICE = 64, ROW_BYTES = 2 * SLICE, WARPGROUP = 128, STAGES_MOST = 12 };
/* A unit of a tile: 16 rows, a warp's, by 16 columns; in shared memory, a lane's numbers lie together. */
enum { HALF_UNIT_BYTES = 32 * 16, UNIT_BYTES = 2 * HALF_UNIT_BYTES };
enum { NORMED_TILES = 8 }; /* beside one another, of a product with a norm */
enum { ROWS_MOST = 512, NORMED_ROWS_LEAST = 128 };
enum { LONG = 1024 };           /* columns of x; with more, a tile is shared out */
enum { STAGED_ROW_BYTES = 48 }; /* 32 and a gap: 8 rows in different banks */

struct mid_plan {
    int groups; /* of 64 rows */
    int parts;  /* of K */
    int stages;
};

struct mid_call {
    CUtensorMap x, w;
    const float *bias, *gain, *shift;
    float eps;
    const void *residual;
    void *y;
    const tfi_cuda_live *live;
    tfi_rows rows;
    tfi_dtype out;
    tfi_activation activation;
    int N, tiles;   /* beside one another or, with a norm, one below the other: blocks beyond those have none */
    int each, more; /* slices of a part; those of the first `more` have one more */
    int parts, stages;
    int owned; /* units of a tile that a block finishes */
};

/* A cluster has the parts of a tile, or with a norm all tiles of its rows. */
template <int GROUPS_, bool SPLIT_, bool NORM_ = false, int WIDTH_ = USUAL_WIDTH>
struct shape_of {
    static constexpr int GROUPS = GROUPS_, WIDTH = WIDTH_;
    static constexpr bool SPLIT = SPLIT_, NORM = NORM_, CLUSTER = SPLIT || NORM;
    static constexpr int ROWS = 64 * GROUPS, WARPS = 4 * GROUPS, THREADS = GROUPS * WARPGROUP + 64;
    static constexpr int X_BYTES = ROWS * ROW_BYTES, STAGE_BYTES = X_BYTES + WIDTH * ROW_BYTES;
    static constexpr int ACROSS = WIDTH / 16, UNITS = WARPS * ACROSS, MEETING_BYTES = SPLIT ? UNITS * UNIT_BYTES : 0;
    static constexpr int STATISTICS_BYTES = NORM ? ROWS * NORMED_TILES * 8 : 0, COLUMN_BYTES = (NORM ? 3 : 1) * WIDTH * 4;
    static constexpr int FIXED_BYTES = MEETING_BYTES + STATISTICS_BYTES + COLUMN_BYTES + (2 * STAGES_MOST + 1) * 8;
    static constexpr int REHEARSED_BYTES = STATISTICS_BYTES + COLUMN_BYTES;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Who a warp is: it multiplies and ends a tile, has the copy engine bring slices, or rehearses the end. */
enum { COPIES = -1, REHEARSES = -2 };

/* Addresses in a block's shared memory, and what is the block's or the warp's. */
template <class S>
struct mid_block {
    uint32_t shared, fixed;
    int role;                      /* the number among those that multiply, or COPIES or REHEARSES */
    int part, beside, row, column; /* which of K's; the tile's number in its row; its first of each */
    int first, count;              /* slices */
    __device__ mid_block(const mid_call &c, uint32_t memory)
    {
        const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0); /* known to be the same for a warp */
        role = warp < S::WARPS ? warp : warp == S::WARPS ? COPIES : REHEARSES;
        shared = memory;
        fixed = memory + c.stages * S::STAGE_BYTES;
        if (role == REHEARSES) fixed += S::FIXED_BYTES - S::MEETING_BYTES; /* statistics and columns that nobody writes */
        part = S::NORM ? 0 : blockIdx.x;
        beside = S::NORM ? blockIdx.x : blockIdx.y;
        row = blockIdx.z * S::ROWS;
        column = beside * S::WIDTH;
        first = part * c.each + min(part, c.more);
        count = c.each + (part < c.more);
    }
    /* Without a tile: it keeps a multiprocessor from the next kernel's blocks, which then are spread over all of them. */
    __device__ bool is_spare(const mid_call &c) const
    {
        return (int)(S::NORM ? blockIdx.z : blockIdx.y) >= c.tiles;
    }
    __device__ bool ends() const
    {
        return role >= 0;
    }
    __device__ int warp() const /* who rehearses does what the first does */
    {
        return max(role, 0);
    }
    __device__ uint32_t x(int stage) const
    {
        return shared + stage * S::STAGE_BYTES;
    }
    __device__ uint32_t w(int stage) const
    {
        return x(stage) + S::X_BYTES;
    }
    /* Sums of others may come at any time, but only a block's own where the ring was. */
    __device__ uint32_t meeting() const
    {
        return S::SPLIT ? fixed : shared;
    }
    __device__ uint32_t statistics() const
    {
        return fixed + S::MEETING_BYTES;
    }
    __device__ uint32_t bias() const /* with a norm, gain and shift are behind it */
    {
        return statistics() + S::STATISTICS_BYTES;
    }
    __device__ uint32_t full(int stage) const
    {
        return bias() + S::COLUMN_BYTES + 8 * stage;
    }
    __device__ uint32_t empty(int stage) const
    {
        return full(STAGES_MOST + stage);
    }
    __device__ uint32_t met() const /* what other blocks send is there */
    {
        return full(2 * STAGES_MOST);
    }
};

/* All blocks of the cluster have arrived, and what they wrote before is seen. */
__device__ void cluster_arrive()
{
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

__device__ void cluster_wait()
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* ---- the copy engine's part: one thread ---- */

template <class S>
__device__ void init_barriers(const mid_call &c, const mid_block<S> &b)
{
#pragma unroll 1
    for (int i = 0; i < c.stages; i++) {
        barrier_init(b.full(i), 1);
        barrier_init(b.empty(i), S::WARPS);
    }
    if (S::CLUSTER) barrier_init(b.met(), 1);
    barriers_are_there();
    before_copies();
    if (S::SPLIT) barrier_expect(b.met(), c.parts * c.owned * UNIT_BYTES);
    if (S::NORM) barrier_expect(b.met(), S::STATISTICS_BYTES);
}

template <class S>
__device__ void load_w(const mid_call &c, const mid_block<S> &b, int i, int stage)
{
    barrier_expect(b.full(stage), S::STAGE_BYTES);
    load_tile(b.w(stage), &c.w, (b.first + i) * SLICE, b.column, b.full(stage));
}

/* Weights do not change during a run: they come before the results of the kernel before, as far as the ring has room, or onto
 * the device's cache. */
template <class S>
__device__ void load_early(const mid_call &c, const mid_block<S> &b)
{
    const int early = min(c.stages, b.count);
#pragma unroll 1
    for (int i = 0; i < early; i++) load_w(c, b, i, i);
    prefetch_map(&c.x);
#pragma unroll 1
    for (int i = early; i < b.count; i++) prefetch_tile(&c.w, (b.first + i) * SLICE, b.column);
}

template <class S>
__device__ void load_late(const mid_call &c, const mid_block<S> &b)
{
    ring_place at;

    wait_for_results();
#pragma unroll 1
    for (int i = 0; i < b.count; i++, at.next(c.stages)) {
        if (i >= c.stages) {
            barrier_wait(b.empty(at.stage), at.phase ^ 1);
            load_w(c, b, i, at.stage);
        }
        load_tile(b.x(at.stage), &c.x, (b.first + i) * SLICE, b.row, b.full(at.stage));
    }
}

/* ---- products ---- */

template <bool bf16, class S>
__device__ void multiply_slices(const mid_call &c, const mid_block<S> &b, float (&sums)[S::WIDTH / 2])
{
    ring_place at;
    int before = 0;

#pragma unroll 1
    for (int i = 0; i < b.count; i++) {
        barrier_wait(b.full(at.stage), at.phase);
        const uint64_t x = tile_descriptor(b.x(at.stage) + b.role / 4 * 64 * ROW_BYTES), w = tile_descriptor(b.w(at.stage));
        products_begin();
#pragma unroll
        for (int k = 0; k < SLICE / 16; k++) multiply<bf16>(sums, x + 2 * k, w + 2 * k, i | k); /* 32 bytes on */
        products_commit();
        products_wait<1>();
        if (i > 0 && threadIdx.x % 32 == 0) barrier_arrive(b.empty(before));
        before = at.stage;
        at.next(c.stages);
    }
    products_wait<0>();
}

/* ---- ends ---- */

__device__ inline float4 read_four(uint32_t from)
{
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

__device__ inline float2 read_two(uint32_t from)
{
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(from) : "memory");
    return v;
}

/* What a kernel's end does: known when it is compiled, and then there is no residual and y is of x's type; or asked for. */
enum ending { PLAIN, GELU_FOR_HALF, ANY };

/* Tests one after the other: a switch's table would come from memory each time a kernel starts. */
template <ending END>
__device__ inline void activate_all(const mid_call &c, float (&v)[8])
{
    if (END == PLAIN) return;
    if (END == GELU_FOR_HALF) {
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = gelu_for_half(v[j]);
    } else if (c.activation == TFI_ACT_GELU) {
        activate<8>(TFI_ACT_GELU, v);
    } else if (c.activation == TFI_ACT_GELU_TANH) {
        activate<8>(TFI_ACT_GELU_TANH, v);
    } else if (c.activation == TFI_ACT_RELU) {
        activate<8>(TFI_ACT_RELU, v);
    } else if (c.activation == TFI_ACT_SILU) {
        activate<8>(TFI_ACT_SILU, v);
    } else if (c.activation == TFI_ACT_TANH) {
        activate<8>(TFI_ACT_TANH, v);
    } else if (c.activation == TFI_ACT_SIGMOID) {
        activate<8>(TFI_ACT_SIGMOID, v);
    }
}

/* 2 columns of a row, where sums are not simply rounded and written. */
__device__ inline void write_pair(const mid_call &c, int64_t at, float low, float high)
{
    if (c.out == TFI_F32) {
        const float2 added = c.residual ? *(const float2 *)((const float *)c.residual + at) : make_float2(0, 0);
        *(float2 *)((float *)c.y + at) = make_float2(low + added.x, high + added.y);
    } else {
        const uint32_t added = c.residual ? *(const uint32_t *)((const uint16_t *)c.residual + at) : 0;
        *(uint32_t *)((uint16_t *)c.y + at) =
            float_to_halves(low + half_to_float(added & 0xffff, c.out), high + half_to_float(added >> 16, c.out), c.out);
    }
}

/* A unit, rounded, by way of `stage` in shared memory so that a lane writes 8 columns. */
template <bool bf16>
__device__ inline void write_unit(const mid_call &c, int row, int column, int live, const float (&v)[8], uint32_t stage,
                                  bool ends)
{
    const int lane = threadIdx.x % 32;
    const uint32_t put = stage + lane % 16 * STAGED_ROW_BYTES + lane / 16 * 16;
    const tfi_dtype type = bf16 ? TFI_BF16 : TFI_F16;
    uint4 line = {};

    if (ends)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(put),
                     "r"(float_to_halves(v[0], v[1], type)), "r"(float_to_halves(v[2], v[3], type)),
                     "r"(float_to_halves(v[4], v[5], type)), "r"(float_to_halves(v[6], v[7], type))
                     : "memory");
    __syncwarp();
    if (ends)
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(line.x), "=r"(line.y), "=r"(line.z), "=r"(line.w)
                     : "r"(stage + lane / 2 * STAGED_ROW_BYTES + lane % 2 * 16)
                     : "memory");
    if (row + lane / 2 < live && column + lane % 2 * 8 < c.N)
        *(uint4 *)((uint16_t *)c.y + (int64_t)(row + lane / 2) * c.N + column + lane % 2 * 8) = line;
}

/* A unit's end. A lane has 2 columns of each 8, of two rows, as products leave them. */
template <bool bf16, ending END, class S>
__device__ void end_unit(const mid_call &c, const mid_block<S> &b, int unit_row, int unit, int live, float (&v)[8],
                         uint32_t stage)
{
    const int lane = threadIdx.x % 32, column = b.column + unit * 16, row = b.row + unit_row;

#pragma unroll
    for (int j = 0; j < 2; j++) {
        const float2 bias = read_two(b.bias() + (unit * 16 + j * 8 + lane % 4 * 2) * 4);
        v[4 * j] += bias.x, v[4 * j + 1] += bias.y, v[4 * j + 2] += bias.x, v[4 * j + 3] += bias.y;
    }
    activate_all<END>(c, v);
    if (END == ANY && (c.out == TFI_F32 || c.residual)) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int r = row + lane / 4 + k % 2 * 8, n = column + k / 2 * 8 + lane % 4 * 2;
            if (r < live && n < c.N) write_pair(c, (int64_t)r * c.N + n, v[2 * k], v[2 * k + 1]);
        }
        return;
    }
    write_unit<bf16>(c, row, column, live, v, stage, b.ends());
}

/* 16 bytes to the shared memory of any block of the cluster, counted at a barrier of it. */
__device__ inline void send_four(uint32_t to, uint32_t barrier, const float *v)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(barrier)
                 : "memory");
}

/* Units of the tile are numbered along its columns; the first c.owned are the first block's. */
template <class S>
__device__ void send_sums(const mid_call &c, const mid_block<S> &b, const float (&sums)[S::WIDTH / 2])
{
    const int first = b.warp() * S::ACROSS;
    const uint32_t lane_at = b.meeting() + b.part * c.owned * UNIT_BYTES + threadIdx.x % 32 * 16;
    int owner = first / c.owned, number = first % c.owned;

#pragma unroll
    for (int unit = 0; unit < S::ACROSS; unit++) {
        const uint32_t to = address_in(lane_at + number * UNIT_BYTES, owner), barrier = address_in(b.met(), owner);
        send_four(to, barrier, sums + unit * 8);
        send_four(to + HALF_UNIT_BYTES, barrier, sums + unit * 8 + 4);
        if (++number < c.owned) continue;
        number = 0;
        owner++;
    }
}

/* The block's units, whose parts lie in shared memory: the warp's own, or every WARPS'th of those that the block finishes. */
template <bool bf16, ending END, class S>
__device__ void end_units(const mid_call &c, const mid_block<S> &b, int live)
{
    const int warp = b.warp(), step = S::SPLIT ? S::WARPS : 1, end = S::SPLIT ? c.owned : (warp + 1) * S::ACROSS;
    const int parts = S::SPLIT ? c.parts : 1, first = S::SPLIT ? b.part * c.owned : 0;

    for (int i = S::SPLIT ? warp : warp * S::ACROSS; i < end; i += step) {
        const uint32_t unit_at = b.meeting() + i * UNIT_BYTES, from = unit_at + threadIdx.x % 32 * 16;
        float v[8] = {};
#pragma unroll 3
        for (int part = 0; part < parts; part++) {
            const uint32_t at = from + part * c.owned * UNIT_BYTES;
            if (!b.ends()) break; /* others may be writing there */
            const float4 low = read_four(at), high = read_four(at + HALF_UNIT_BYTES);
            v[0] += low.x, v[1] += low.y, v[2] += low.z, v[3] += low.w;
            v[4] += high.x, v[5] += high.y, v[6] += high.z, v[7] += high.w;
        }
        __syncwarp(); /* all have read where the unit is staged */
        end_unit<bf16, END>(c, b, (first + i) / S::ACROSS * 16, (first + i) % S::ACROSS, live, v, unit_at);
    }
}

/* The same from registers, where a block's own sums are all. */
template <bool bf16, ending END, class S>
__device__ void end_own(const mid_call &c, const mid_block<S> &b, int live, const float (&sums)[S::WIDTH / 2])
{
    const int warp = b.warp();
#pragma unroll
    for (int unit = 0; unit < S::ACROSS; unit++) {
        float v[8];
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = sums[unit * 8 + k];
        end_unit<bf16, END>(c, b, warp * 16, unit, live, v, b.meeting() + (warp * S::ACROSS + unit) * UNIT_BYTES);
    }
}

template <class S>
__device__ void keep_sums(const mid_block<S> &b, const float (&sums)[S::WIDTH / 2])
{
    const uint32_t at = b.meeting() + b.warp() * (S::ACROSS * UNIT_BYTES) + threadIdx.x % 32 * 16;
#pragma unroll
    for (int i = 0; i < S::WIDTH / 8; i++)
        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(at + i * HALF_UNIT_BYTES), "f"(sums[4 * i]),
                     "f"(sums[4 * i + 1]), "f"(sums[4 * i + 2]), "f"(sums[4 * i + 3])
                     : "memory");
}

/* Only short code is written out for all of a warp's units: the rest would come from memory, once, and take longer than what it
 * does. */
template <bool bf16, class S>
__device__ void end_tile(const mid_call &c, const mid_block<S> &b, int live, const float (&sums)[S::WIDTH / 2])
{
    const bool rounds = c.out != TFI_F32 && !c.residual;
    if constexpr (!S::SPLIT) {
        if (c.activation == TFI_ACT_NONE && rounds) return end_own<bf16, PLAIN>(c, b, live, sums);
        if (c.activation == TFI_ACT_GELU && rounds) return end_own<bf16, GELU_FOR_HALF>(c, b, live, sums);
        if (b.ends()) keep_sums(b, sums);
        __syncwarp();
    }
    if (c.activation == TFI_ACT_NONE && rounds) end_units<bf16, PLAIN>(c, b, live);
    else end_units<bf16, ANY>(c, b, live);
}

/* ---- the end with a norm ---- */

/* What is added to a lane's numbers, before products begin: pairs in the order of its sums. */
template <class S>
__device__ void load_residual(const mid_call &c, const mid_block<S> &b, int live, uint32_t (&added)[S::WIDTH / 4])
{
    const int lane = threadIdx.x % 32;

#pragma unroll
    for (int i = 0; i < S::WIDTH / 4; i++) {
        const int row = b.row + b.warp() * 16 + lane / 4 + i % 2 * 8, column = b.column + i / 2 * 8 + lane % 4 * 2;
        const uint16_t *const from = (const uint16_t *)c.residual + (int64_t)row * c.N + column;
        added[i] = c.residual && row < live ? *(const uint32_t *)from : 0;
    }
}

__device__ inline float quad_sum(float v)
{
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

/* Of the tile's columns of a row, `half` 0 or the eighth row after it: the mean, and the sum of squared differences to it. */
template <class S>
__device__ float2 tile_statistics(const float (&v)[S::WIDTH / 2], int half)
{
    float sum = 0, squares = 0;

#pragma unroll
    for (int i = 0; i < S::WIDTH / 4; i++) sum += v[i / 2 * 4 + i % 2 + half * 2];
    const float mean = quad_sum(sum) * (1.0f / S::WIDTH);
#pragma unroll
    for (int i = 0; i < S::WIDTH / 4; i++) {
        const float difference = v[i / 2 * 4 + i % 2 + half * 2] - mean;
        squares += difference * difference;
    }
    return make_float2(mean, quad_sum(squares));
}

/* To all blocks of the cluster. */
template <class S>
__device__ void send_statistics(const mid_block<S> &b, int row, float2 s)
{
    const uint32_t at = b.statistics() + (row * NORMED_TILES + b.beside) * 8;

#pragma unroll
    for (int i = 0; i < NORMED_TILES / 4; i++) {
        const int block = threadIdx.x % 4 + 4 * i;
        asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(
                         address_in(at, block)),
                     "f"(s.x), "f"(s.y), "r"(address_in(b.met(), block))
                     : "memory");
    }
}

/* A whole row's: (v - x) * y is what a norm makes of a number. */
template <class S>
__device__ float2 row_statistics(const mid_call &c, const mid_block<S> &b, int row)
{
    const uint32_t at = b.statistics() + (row * NORMED_TILES + threadIdx.x % 4) * 8;
    const float2 one = read_two(at), other = read_two(at + 4 * 8);
    const float mean = quad_sum(one.x + other.x) * (1.0f / NORMED_TILES), d = one.x - mean, e = other.x - mean;
    const float squares = quad_sum(one.y + other.y + S::WIDTH * (d * d + e * e));

    return make_float2(mean, 1 / sqrtf(squares / (float)c.N + c.eps));
}

template <bool bf16, class S>
__device__ void end_normed(const mid_call &c, const mid_block<S> &b, int live, float (&v)[S::WIDTH / 2],
                           const uint32_t (&added)[S::WIDTH / 4])
{
    const tfi_dtype type = bf16 ? TFI_BF16 : TFI_F16;
    const int lane = threadIdx.x % 32, warp_row = b.warp() * 16;
    const uint32_t columns = b.bias() + lane % 4 * 8, stage = b.shared + b.warp() * UNIT_BYTES;
    float2 s[2];

#pragma unroll
    for (int i = 0; i < S::WIDTH / 4; i++) {
        const float2 bias = read_two(columns + i / 2 * 32);
        v[2 * i] += bias.x + half_to_float(added[i] & 0xffff, type);
        v[2 * i + 1] += bias.y + half_to_float(added[i] >> 16, type);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) s[half] = tile_statistics<S>(v, half);
#pragma unroll
    for (int half = 0; half < 2; half++)
        if (b.ends()) send_statistics(b, warp_row + lane / 4 + half * 8, s[half]);
    if (b.ends()) barrier_wait_for_cluster(b.met(), 0);
#pragma unroll
    for (int half = 0; half < 2; half++) s[half] = row_statistics(c, b, warp_row + lane / 4 + half * 8);
#pragma unroll
    for (int unit = 0; unit < S::ACROSS; unit++) {
        float z[8];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const uint32_t at = columns + unit * 64 + k / 2 * 32 + S::WIDTH * 4;
            const float2 gain = read_two(at), shift = read_two(at + S::WIDTH * 4);
            z[2 * k] = (v[unit * 8 + 2 * k] - s[k % 2].x) * s[k % 2].y * gain.x + shift.x;
            z[2 * k + 1] = (v[unit * 8 + 2 * k + 1] - s[k % 2].x) * s[k % 2].y * gain.y + shift.y;
        }
        __syncwarp(); /* all have read what was staged here */
        write_unit<bf16>(c, b.row + warp_row, b.column + unit * 16, live, z, stage, b.ends());
    }
}

/* ---- all of it ---- */

/* Of the tile's columns: bias and, with a norm, gain and shift. */
template <class S>
__device__ void stage_columns(const mid_call &c, const mid_block<S> &b)
{
    const float *const from[3] = {c.bias, c.gain, c.shift};
    const int column = b.column + (int)threadIdx.x;

    if (threadIdx.x >= S::WIDTH) return;
#pragma unroll
    for (int i = 0; i < (S::NORM ? 3 : 1); i++) {
        const float v = from[i] && column < c.N ? from[i][column] : 0;
        asm volatile("st.shared.f32 [%0], %1;" ::"r"(b.bias() + (i * S::WIDTH + threadIdx.x) * 4), "f"(v) : "memory");
    }
}

/* Sums that are whole, or all parts of those that this block finishes. */
template <bool bf16, class S>
__device__ void multiply_tile(const mid_call &c, const mid_block<S> &b, int live, float (&sums)[S::WIDTH / 2],
                              uint32_t (&added)[S::WIDTH / 4])
{
    stage_columns(c, b);
    wait_for_results();
    if constexpr (S::NORM) load_residual(c, b, live, added);
    multiply_slices<bf16>(c, b, sums);
    if constexpr (S::CLUSTER) cluster_wait();
    if constexpr (S::SPLIT) send_sums(c, b, sums);
    asm volatile("bar.sync 1, %0;" ::"n"(S::WARPS * 32) : "memory"); /* columns are there, and all are done with the ring */
    if constexpr (S::SPLIT) barrier_wait_for_cluster(b.met(), 0);
}

/* A tile; or, by a warp of its own, a rehearsal of its end, which reads and writes nothing: instructions that a kernel has not
 * run yet come from memory, about 3 ns each. So they are there when sums are, and nobody has waited for them. */
template <bool bf16, class S>
__device__ void do_tile(const mid_call &c, const mid_block<S> &b)
{
    const int live = b.ends() ? c.live->rows[c.rows] : 0;
    float sums[S::WIDTH / 2]; /* the first products write them all: were they set before, products would wait for one another */
    uint32_t added[S::WIDTH / 4] = {};

    if (b.ends()) {
        multiply_tile<bf16>(c, b, live, sums, added);
    } else if (!S::SPLIT) {
#pragma unroll
        for (float &sum : sums) sum = 0;
    }
    if constexpr (S::NORM) end_normed<bf16>(c, b, live, sums, added);
    else end_tile<bf16>(c, b, live, sums);
}

#endif

template <bool bf16, class S>
__global__ void __launch_bounds__(S::THREADS, 2) mid(const __grid_constant__ mid_call c)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) unsigned char memory[];

    follow();
    const mid_block<S> b(c, shared_address(memory));
    if (b.is_spare(c)) return wait_for_results();
    const bool loads = b.role == COPIES && one_of_warp();
    if (loads) init_barriers(c, b);
    __syncwarp();
    if (S::CLUSTER) cluster_arrive(); /* others may send when this block's barriers are there */
    __syncthreads();
    if (b.role != COPIES) do_tile<bf16>(c, b);
    if (loads) {
        load_early(c, b);
        load_late(c, b);
    }
    if (S::CLUSTER && !b.ends()) {
        __syncwarp();
        cluster_wait();
    }
#endif
}

/* ---- host ---- */

template <bool bf16, class S>
tf_status launch(const tfi_cuda_launch *l, const tfi_mid_args *a, tfi_rows rows, const mid_plan &p)
{
    const int bytes = p.stages * S::STAGE_BYTES + S::FIXED_BYTES + S::REHEARSED_BYTES;
    mid_call c = {};
    c.bias = a->bias;
    c.gain = a->gain;
    c.shift = a->shift;
    c.eps = a->eps;
    c.residual = a->residual;
    c.y = a->y;
    c.live = l->live;
    c.rows = rows;
    c.out = a->out;
    c.activation = a->activation;
    c.N = (int)a->N;
    c.each = (int)blocks_of(a->K, SLICE) / p.parts;
    c.more = (int)blocks_of(a->K, SLICE) % p.parts;
    c.parts = p.parts;
    c.stages = p.stages;
    c.owned = S::UNITS / p.parts;
    if (!map_tiles(a->encode, &c.x, bf16, a->x, a->M, a->K, S::ROWS) ||
        !map_tiles(a->encode, &c.w, bf16, a->w, a->N, a->K, S::WIDTH))
        return tfi_fail(TF_STATUS_DEVICE, "LINEAR: no map for the copy engine of [%lld, %lld] and [%lld, %lld]",
                        (long long)a->M, (long long)a->K, (long long)a->N, (long long)a->K);
    const cudaError_t error = cudaFuncSetAttribute(mid<bf16, S>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return started("LINEAR", error);
    const unsigned across = blocks_of(a->N, S::WIDTH), down = blocks_of(a->M, S::ROWS), beside = S::NORM ? across : p.parts;
    const unsigned tiles = S::NORM ? down : across, filled = (unsigned)l->multiprocessors / (S::NORM ? across : p.parts * down);
    const unsigned launched = filled > tiles ? filled : tiles;
    c.tiles = (int)tiles;
    return start_clusters(l, "LINEAR", S::CLUSTER ? beside : 1, mid<bf16, S>,
                          S::NORM ? dim3(beside, 1, launched) : dim3(beside, launched, down), S::THREADS, (size_t)bytes, c);
}

template <bool bf16, int WIDTH>
tf_status launch_normed(const tfi_cuda_launch *l, const tfi_mid_args *a, tfi_rows rows, const mid_plan &p)
{
    return launch<bf16, shape_of<1, false, true, WIDTH>>(l, a, rows, p);
}

/* Columns of a block, where a row's blocks are few enough for a cluster; 0: none. */
int norm_width(int64_t N)
{
    return N == NORMED_TILES * 96 ? 96 : N == NORMED_TILES * 128 ? 128 : 0;
}

template <bool bf16>
tf_status launch_plan(const tfi_cuda_launch *l, const tfi_mid_args *a, tfi_rows rows, const mid_plan &p)
{
    if (a->gain)
        return norm_width(a->N) == 96 ? launch_normed<bf16, 96>(l, a, rows, p) : launch_normed<bf16, 128>(l, a, rows, p);
    if (p.groups == 1)
        return p.parts == 1 ? launch<bf16, shape_of<1, false>>(l, a, rows, p) : launch<bf16, shape_of<1, true>>(l, a, rows, p);
    return p.parts == 1 ? launch<bf16, shape_of<2, false>>(l, a, rows, p) : launch<bf16, shape_of<2, true>>(l, a, rows, p);
}

/* No plan: others are as fast, or nobody has shown that they are slower. Measured where there are 132 multiprocessors. */
bool choose(const tfi_mid_args *a, mid_plan *p)
{
    if (a->M > ROWS_MOST) return false;
    if (a->gain) {
        *p = mid_plan{1, 1, 8};
        return a->K <= LONG && a->M > NORMED_ROWS_LEAST && norm_width(a->N) > 0 && a->activation == TFI_ACT_NONE &&
               a->out == a->type;
    }
    const int64_t across = blocks_of(a->N, USUAL_WIDTH), small = blocks_of(a->M, 64) * across,
                  large = blocks_of(a->M, 128) * across;

    if (a->K > LONG) *p = small <= 16 ? mid_plan{1, 6, 6} : small <= 33 ? mid_plan{1, 3, 8} : mid_plan{2, 3, 6};
    else *p = small <= 132 ? mid_plan{1, 1, 8} : mid_plan{2, 1, 5};
    return a->K > LONG ? large <= 42 : large <= 132; /* as many clusters of three find room at once */
}

} // namespace

extern "C" int tfi_cuda_mid_fits(const tfi_mid_args *a, int capability)
{
#if defined(TFI_SM_90A)
    mid_plan p = {};
    return capability == 90 && a->encode && a->type != TFI_F32 && (a->out == a->type || a->out == TFI_F32) && a->M > 64 &&
           a->K % 8 == 0 && in_vectors(a->N, a->x, a->w, a->residual, a->y) && choose(a, &p);
#else
    (void)a, (void)capability;
    return 0;
#endif
}

extern "C" tf_status tfi_cuda_mid(const tfi_cuda_launch *l, const tfi_mid_args *a, tfi_rows rows)
{
    mid_plan p = {};

    (void)choose(a, &p);
    return a->type == TFI_BF16 ? launch_plan<true>(l, a, rows, p) : launch_plan<false>(l, a, rows, p);
}
