/* LINEAR of 65 to 256 rows, for latency: y = act(x w^T + bias) + residual
 *
 * Shapes    x [M, K], w [N, K] of one 16-bit type; bias [N] fp32; residual, y [M, N] of that type or fp32; sums fp32
 * Parallel  a block has 64 or 128 rows and 96 columns, and of K all or, in a cluster, a part: so that most multiprocessors
 *           have a block even where N is small. One thread has the copy engine fill a ring of slices of x and w, 64 columns
 *           each, with as much of w as it holds ahead of the results of the kernel before; a warpgroup for each 64 rows
 *           multiplies. Blocks of a cluster send each other partial sums: each finishes some of the tile.
 * Needs     9.0 exactly (wgmma); K % 8 == 0, N % 8 == 0, 16-byte aligned buffers
 * Floor     M=512, N=3072, K=768: 2.4 GFLOP / 790 TFLOP/s = 3.1 us, and about 1.3 us from kernel to kernel: 0.55 to see the
 *           results of the one before, 0.45 for the first slice of x, the rest for the end
 * Measured  H200, CUDA 13.0, fp16, other weights each time: 128 x 2304 x 768: 3.8 us, 128 x 768 x 768: 3.6, 128 x 3072 x 768
 *           with GELU: 5.1, 128 x 768 x 3072: 5.2 (the matrix library in BERT: 5.2, 4.4, 7.2 and 10.5); 256 rows: 5.0, 3.7,
 *           6.1, 7.3; 512 rows: 6.1, 3.7, 7.7 (7.0, 4.8, 9.3). BERT-base of 1 x 128: 0.40 ms in place of 0.45, 1 x 256: 0.46
 *           in place of 0.49; 1 x 512 0.54 to 0.60 with these products and 0.54 to 0.61 without: undecided, as the library's
 *           choices differ from process to process
 * Tried     512 x 768 x 3072 in 3 parts of 128 x 96 tiles: 9.5 us, the matrix library 8.2: a block sends 32 KB in 1.2 us.
 *           Clusters of 4 blocks that fill a multiprocessor each do not all find room at once: 14.9. Blocks that share x by
 *           multicast: no gain. Asking for the next product's weights early: no gain. Ends of whole tiles by way of shared
 *           memory as fp32: 1.7 us in place of 1.0; lanes that swap columns: 1.6. 192 blocks of 64 x 96: 512 x 2304 x 768 in
 *           7.5 us. */
#include "hopper.cuh"

#include "activation.cuh"
#include "types.cuh"

namespace
{

enum { WIDTH = 96, SLICE = 64, ROW_BYTES = 2 * SLICE, WARPGROUP = 128, STAGES_MOST = 12 };
/* A unit of a tile: 16 rows, a warp's, by 16 columns; in shared memory, a lane's numbers lie together. */
enum { UNITS_ACROSS = WIDTH / 16, HALF_UNIT_BYTES = 32 * 16, UNIT_BYTES = 2 * HALF_UNIT_BYTES };
enum { ROWS_MOST = 256 };
enum { LONG = 1024 };           /* columns of x; with more, a tile is shared out */
enum { STAGED_ROW_BYTES = 48 }; /* 32 and a gap: 8 rows in different banks */

struct mid_plan {
    int groups; /* of 64 rows */
    int parts;  /* of K */
    int stages;
};

struct mid_call {
    CUtensorMap x, w;
    const float *bias;
    const void *residual;
    void *y;
    const tfi_cuda_live *live;
    tfi_rows rows;
    tfi_dtype out;
    tfi_activation activation;
    int N, slices, across; /* across: tiles beside one another */
    int parts, stages;
    int owned; /* units of a tile that a block finishes */
};

template <int GROUPS_, bool SPLIT_>
struct shape_of {
    static constexpr int GROUPS = GROUPS_;
    static constexpr bool SPLIT = SPLIT_;
    static constexpr int ROWS = 64 * GROUPS, WARPS = 4 * GROUPS, THREADS = GROUPS * WARPGROUP + 32;
    static constexpr int X_BYTES = ROWS * ROW_BYTES, STAGE_BYTES = X_BYTES + WIDTH * ROW_BYTES;
    static constexpr int UNITS = WARPS * UNITS_ACROSS, MEETING_BYTES = SPLIT ? UNITS * UNIT_BYTES : 0;
    static constexpr int FIXED_BYTES = MEETING_BYTES + WIDTH * 4 + (2 * STAGES_MOST + 1) * 8;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Addresses in a block's shared memory, and what is the block's. */
template <class S>
struct mid_block {
    uint32_t shared, fixed;
    int part, row, column; /* place in the cluster; of its tile */
    int first, count;      /* slices */
    __device__ mid_block(const mid_call &c, uint32_t memory)
    {
        const int tile = blockIdx.x / c.parts;
        shared = memory;
        fixed = memory + c.stages * S::STAGE_BYTES;
        part = blockIdx.x % c.parts;
        row = tile / c.across * S::ROWS;
        column = tile % c.across * WIDTH;
        first = part * c.slices / c.parts;
        count = (part + 1) * c.slices / c.parts - first;
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
    __device__ uint32_t bias() const
    {
        return fixed + S::MEETING_BYTES;
    }
    __device__ uint32_t full(int stage) const
    {
        return bias() + WIDTH * 4 + 8 * stage;
    }
    __device__ uint32_t empty(int stage) const
    {
        return full(STAGES_MOST + stage);
    }
    __device__ uint32_t met() const
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
    for (int i = 0; i < c.stages; i++) {
        barrier_init(b.full(i), 1);
        barrier_init(b.empty(i), S::WARPS);
    }
    if (S::SPLIT) barrier_init(b.met(), 1);
    barriers_are_there();
    show_to_copies();
    if (S::SPLIT) barrier_expect(b.met(), c.parts * c.owned * UNIT_BYTES);
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
    for (int i = 0; i < early; i++) load_w(c, b, i, i);
    prefetch_map(&c.x);
    for (int i = early; i < b.count; i++) prefetch_tile(&c.w, (b.first + i) * SLICE, b.column);
}

template <class S>
__device__ void load_late(const mid_call &c, const mid_block<S> &b)
{
    ring_place at;

    wait_for_results();
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
__device__ void multiply_slices(const mid_call &c, const mid_block<S> &b, int group, float (&sums)[WIDTH / 2])
{
    ring_place at;
    int before = 0;

    for (int i = 0; i < b.count; i++) {
        barrier_wait(b.full(at.stage), at.phase);
        const uint64_t x = tile_descriptor(b.x(at.stage) + group * 64 * ROW_BYTES), w = tile_descriptor(b.w(at.stage));
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

/* Which functions a kernel's end has: known when it is compiled, or asked for. */
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

/* A unit's end. A lane has 2 columns of each 8, of two rows, as products leave them; rounded, they go through `stage` in shared
 * memory so that a lane writes 8 columns. */
template <ending END, class S>
__device__ void end_unit(const mid_call &c, const mid_block<S> &b, int unit_row, int unit, int live, float (&v)[8],
                         uint32_t stage)
{
    const int lane = threadIdx.x % 32, column = b.column + unit * 16, row = b.row + unit_row;
    uint4 line;

#pragma unroll
    for (int j = 0; j < 2; j++) {
        float2 bias;
        asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                     : "=f"(bias.x), "=f"(bias.y)
                     : "r"(b.bias() + (unit * 16 + j * 8 + lane % 4 * 2) * 4)
                     : "memory");
        v[4 * j] += bias.x, v[4 * j + 1] += bias.y, v[4 * j + 2] += bias.x, v[4 * j + 3] += bias.y;
    }
    activate_all<END>(c, v);
    if (c.out == TFI_F32 || c.residual) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const int r = row + lane / 4 + k % 2 * 8, n = column + k / 2 * 8 + lane % 4 * 2;
            if (r < live && n < c.N) write_pair(c, (int64_t)r * c.N + n, v[2 * k], v[2 * k + 1]);
        }
        return;
    }
    const uint32_t put = stage + lane % 16 * STAGED_ROW_BYTES + lane / 16 * 16;
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(put),
                 "r"(float_to_halves(v[0], v[1], c.out)), "r"(float_to_halves(v[2], v[3], c.out)),
                 "r"(float_to_halves(v[4], v[5], c.out)), "r"(float_to_halves(v[6], v[7], c.out))
                 : "memory");
    __syncwarp();
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(line.x), "=r"(line.y), "=r"(line.z), "=r"(line.w)
                 : "r"(stage + lane / 2 * STAGED_ROW_BYTES + lane % 2 * 16)
                 : "memory");
    if (row + lane / 2 < live && column + lane % 2 * 8 < c.N)
        *(uint4 *)((uint16_t *)c.y + (int64_t)(row + lane / 2) * c.N + column + lane % 2 * 8) = line;
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
__device__ void send_sums(const mid_call &c, const mid_block<S> &b, const float (&sums)[WIDTH / 2])
{
    const int first = threadIdx.x / 32 * UNITS_ACROSS;
    const uint32_t lane_at = b.meeting() + b.part * c.owned * UNIT_BYTES + threadIdx.x % 32 * 16;
    int owner = first / c.owned, number = first % c.owned;

#pragma unroll
    for (int unit = 0; unit < UNITS_ACROSS; unit++) {
        const uint32_t to = address_in(lane_at + number * UNIT_BYTES, owner), barrier = address_in(b.met(), owner);
        send_four(to, barrier, sums + unit * 8);
        send_four(to + HALF_UNIT_BYTES, barrier, sums + unit * 8 + 4);
        if (++number < c.owned) continue;
        number = 0;
        owner++;
    }
}

/* The block's units, whose parts lie in shared memory: the warp's own, or every WARPS'th of those that the block finishes. */
template <ending END, class S>
__device__ void end_units(const mid_call &c, const mid_block<S> &b, int live)
{
    const int warp = threadIdx.x / 32, step = S::SPLIT ? S::WARPS : 1, end = S::SPLIT ? c.owned : (warp + 1) * UNITS_ACROSS;
    const int parts = S::SPLIT ? c.parts : 1, first = S::SPLIT ? b.part * c.owned : 0;

    for (int i = S::SPLIT ? warp : warp * UNITS_ACROSS; i < end; i += step) {
        const uint32_t unit_at = b.meeting() + i * UNIT_BYTES, from = unit_at + threadIdx.x % 32 * 16;
        float v[8] = {};
#pragma unroll 3
        for (int part = 0; part < parts; part++) {
            const uint32_t at = from + part * c.owned * UNIT_BYTES;
            const float4 low = read_four(at), high = read_four(at + HALF_UNIT_BYTES);
            v[0] += low.x, v[1] += low.y, v[2] += low.z, v[3] += low.w;
            v[4] += high.x, v[5] += high.y, v[6] += high.z, v[7] += high.w;
        }
        __syncwarp(); /* all have read where the unit is staged */
        end_unit<END>(c, b, (first + i) / UNITS_ACROSS * 16, (first + i) % UNITS_ACROSS, live, v, unit_at);
    }
}

/* The same from registers, where a block's own sums are all. */
template <ending END, class S>
__device__ void end_own(const mid_call &c, const mid_block<S> &b, int live, const float (&sums)[WIDTH / 2])
{
    const int warp = threadIdx.x / 32;
#pragma unroll
    for (int unit = 0; unit < UNITS_ACROSS; unit++) {
        float v[8];
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = sums[unit * 8 + k];
        end_unit<END>(c, b, warp * 16, unit, live, v, b.meeting() + (warp * UNITS_ACROSS + unit) * UNIT_BYTES);
    }
}

template <class S>
__device__ void keep_sums(const mid_block<S> &b, const float (&sums)[WIDTH / 2])
{
    const uint32_t at = b.meeting() + threadIdx.x / 32 * (UNITS_ACROSS * UNIT_BYTES) + threadIdx.x % 32 * 16;
#pragma unroll
    for (int i = 0; i < WIDTH / 8; i++)
        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(at + i * HALF_UNIT_BYTES), "f"(sums[4 * i]),
                     "f"(sums[4 * i + 1]), "f"(sums[4 * i + 2]), "f"(sums[4 * i + 3])
                     : "memory");
}

/* Only short code is written out for all of a warp's units: the rest would come from memory, once, and take longer than what it
 * does. */
template <class S>
__device__ void end_tile(const mid_call &c, const mid_block<S> &b, int live, const float (&sums)[WIDTH / 2])
{
    const bool rounds = c.out != TFI_F32;
    if constexpr (!S::SPLIT) {
        if (c.activation == TFI_ACT_NONE && rounds && !c.residual) return end_own<PLAIN>(c, b, live, sums);
        if (c.activation == TFI_ACT_GELU && rounds && !c.residual) return end_own<GELU_FOR_HALF>(c, b, live, sums);
        keep_sums(b, sums);
        __syncwarp();
    }
    if (c.activation == TFI_ACT_NONE) end_units<PLAIN>(c, b, live);
    else if (c.activation == TFI_ACT_GELU && rounds) end_units<GELU_FOR_HALF>(c, b, live);
    else end_units<ANY>(c, b, live);
}

/* A consumer thread's part. */
template <bool bf16, class S>
__device__ void consume(const mid_call &c, const mid_block<S> &b, int group)
{
    const int live = c.live->rows[c.rows], column = b.column + (int)threadIdx.x;
    float sums[WIDTH / 2];

    if (threadIdx.x < WIDTH) {
        const float bias = c.bias && column < c.N ? c.bias[column] : 0;
        asm volatile("st.shared.f32 [%0], %1;" ::"r"(b.bias() + threadIdx.x * 4), "f"(bias) : "memory");
    }
    wait_for_results();
    multiply_slices<bf16>(c, b, group, sums);
    if constexpr (S::SPLIT) {
        cluster_wait();
        send_sums(c, b, sums);
    }
    asm volatile("bar.sync 1, %0;" ::"n"(S::WARPS * 32) : "memory"); /* the bias is there, and all are done with the ring */
    if constexpr (S::SPLIT) barrier_wait_for_cluster(b.met(), 0);
    end_tile(c, b, live, sums);
}

#endif

template <bool bf16, class S>
__global__ void __launch_bounds__(S::THREADS, 2) mid(const __grid_constant__ mid_call c)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) unsigned char memory[];
    const mid_block<S> b(c, shared_address(memory));
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / WARPGROUP, 0); /* known to be the same for a warp */
    const bool loads = group == S::GROUPS && one_of_warp();

    follow();
    if (loads) init_barriers(c, b);
    __syncwarp();
    if (S::SPLIT) cluster_arrive(); /* others may send when this block's barriers are there */
    __syncthreads();
    if (loads) {
        load_early(c, b);
        load_late(c, b);
    } else if (group < S::GROUPS) {
        consume<bf16>(c, b, group);
    }
    if (S::SPLIT && group == S::GROUPS) {
        __syncwarp();
        cluster_wait();
    }
#endif
}

/* ---- host ---- */

template <bool bf16, class S>
tf_status launch(const tfi_cuda_launch *l, const tfi_mid_args *a, tfi_rows rows, const mid_plan &p)
{
    const int bytes = p.stages * S::STAGE_BYTES + S::FIXED_BYTES;
    mid_call c = {};
    c.bias = a->bias;
    c.residual = a->residual;
    c.y = a->y;
    c.live = l->live;
    c.rows = rows;
    c.out = a->out;
    c.activation = a->activation;
    c.N = (int)a->N;
    c.slices = (int)blocks_of(a->K, SLICE);
    c.across = (int)blocks_of(a->N, WIDTH);
    c.parts = p.parts;
    c.stages = p.stages;
    c.owned = S::UNITS / p.parts;
    if (!map_tiles(a->encode, &c.x, bf16, a->x, a->M, a->K, S::ROWS) ||
        !map_tiles(a->encode, &c.w, bf16, a->w, a->N, a->K, WIDTH))
        return tfi_fail(TF_STATUS_DEVICE, "LINEAR: no map for the copy engine of [%lld, %lld] and [%lld, %lld]",
                        (long long)a->M, (long long)a->K, (long long)a->N, (long long)a->K);
    const cudaError_t error = cudaFuncSetAttribute(mid<bf16, S>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return started("LINEAR", error);
    return start_clusters(l, "LINEAR", (unsigned)p.parts, mid<bf16, S>,
                          blocks_of(a->M, S::ROWS) * (unsigned)(c.across * p.parts), S::THREADS, (size_t)bytes, c);
}

template <bool bf16>
tf_status launch_plan(const tfi_cuda_launch *l, const tfi_mid_args *a, tfi_rows rows, const mid_plan &p)
{
    if (p.groups == 1)
        return p.parts == 1 ? launch<bf16, shape_of<1, false>>(l, a, rows, p) : launch<bf16, shape_of<1, true>>(l, a, rows, p);
    return p.parts == 1 ? launch<bf16, shape_of<2, false>>(l, a, rows, p) : launch<bf16, shape_of<2, true>>(l, a, rows, p);
}

/* No plan: others are as fast, or nobody has shown that they are slower. Measured where there are 132 multiprocessors. */
bool choose(const tfi_mid_args *a, mid_plan *p)
{
    const int64_t across = blocks_of(a->N, WIDTH), small = blocks_of(a->M, 64) * across, large = blocks_of(a->M, 128) * across;

    if (a->K > LONG) *p = small <= 16 ? mid_plan{1, 6, 6} : mid_plan{1, 3, 8};
    else *p = small <= 132 ? mid_plan{1, 1, 8} : mid_plan{2, 1, 7};
    return a->M <= ROWS_MOST && (a->K > LONG ? small <= 33 : large <= 132);
}

} // namespace

extern "C" int tfi_cuda_mid_fits(const tfi_mid_args *a, int capability)
{
#if defined(TFI_SM_90A)
    mid_plan p;
    return capability == 90 && a->encode && a->type != TFI_F32 && (a->out == a->type || a->out == TFI_F32) && a->M > 64 &&
           a->K % 8 == 0 && in_vectors(a->N, a->x, a->w, a->residual, a->y) && choose(a, &p);
#else
    (void)a, (void)capability;
    return 0;
#endif
}

extern "C" tf_status tfi_cuda_mid(const tfi_cuda_launch *l, const tfi_mid_args *a, tfi_rows rows)
{
    mid_plan p;

    (void)choose(a, &p);
    return a->type == TFI_BF16 ? launch_plan<true>(l, a, rows, p) : launch_plan<false>(l, a, rows, p);
}
