/* LINEAR of many rows with GELU (the erf form, which the matrix library has not) at its end: y = gelu(x w^T + bias)
 *
 * Shapes    x [M, K], w [N, K], y [M, N] of one 16-bit type; bias [N] fp32; sums fp32, rounded to the type once before bias and
 *           GELU are added in fp32
 * Parallel  A block a multiprocessor, or a pair of them, which take tiles of 128 rows in turn. One thread has the copy engine
 *           fill a ring of slices of x and w, 64 columns each; two warpgroups multiply, 64 rows each. A finished tile waits in
 *           registers, rounded to 16 bits, while the next one is multiplied: its end is computed, 32 columns a slice, between
 *           the starting of products and the waiting for them, so that the tensor cores never wait for it.
 *           The two blocks of a pair have the same rows of w: each fetches half of them for both.
 * Needs     9.0 exactly (wgmma), K % 8 == 0, N % 8 == 0, 16-byte aligned buffers, slices enough to hide the end behind
 * Floor     M=49152, N=3072, K=768: 232 GFLOP / 800 TFLOP/s = 290 us
 * Measured  388 us on H200, the matrix library and FINISH 500; M=4096 38 and 45. Without the end 290 us: the end is not hidden
 * yet. Tried     pairs of blocks that fetch w for each other: 422 us */
#include "hopper.cuh"

#include "activation.cuh"
#include "types.cuh"

namespace
{

enum { ROWS = 128, SLICE = 64, WARPGROUP = 128, THREADS = 3 * WARPGROUP, PIECE = 32, CHUNK = 64, CONSUMER_WARPS = 8 };
enum { ROW_BYTES = 2 * SLICE, CHUNK_BYTES = 64 * ROW_BYTES };

struct many_call {
    CUtensorMap x, w, y;
    const float *bias;
    int N, slices, columns, tiles; /* columns: tiles beside one another; tiles: of a whole cluster */
};

template <int WIDTH>
struct layout {
    enum {
        STAGES = WIDTH == 256 ? 4 : 6,
        X_BYTES = ROWS * ROW_BYTES,
        W_BYTES = WIDTH * ROW_BYTES,
        STAGE_BYTES = X_BYTES + W_BYTES,
        OUT = STAGES * STAGE_BYTES, /* two chunks for each warpgroup */
        BARRIERS = OUT + 4 * CHUNK_BYTES,
        BYTES = BARRIERS + 2 * STAGES * 8,
        PIECES = WIDTH / PIECE
    };
};

/* Where in the ring, and the parity of the turn. */
template <int STAGES>
struct place {
    int stage = 0, phase = 0;
    __device__ void next()
    {
        if (++stage < STAGES) return;
        stage = 0;
        phase ^= 1;
    }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* A block's place in shared memory and in its cluster, and the walk over its tiles, without divisions. */
template <int WIDTH, int CLUSTER>
struct block {
    typedef layout<WIDTH> L;
    uint32_t shared;
    int rank, rows, columns; /* of a step */

    __device__ block(const many_call &c, const unsigned char *memory)
    {
        shared = shared_address(memory);
        rank = CLUSTER == 1 ? 0 : blockIdx.x % CLUSTER;
        rows = gridDim.x / CLUSTER / c.columns;
        columns = gridDim.x / CLUSTER % c.columns;
    }
    __device__ uint32_t x(int stage) const
    {
        return shared + stage * L::STAGE_BYTES;
    }
    __device__ uint32_t w(int stage) const
    {
        return x(stage) + L::X_BYTES;
    }
    __device__ uint32_t full(int stage) const
    {
        return shared + L::BARRIERS + 8 * stage;
    }
    __device__ uint32_t empty(int stage) const
    {
        return full(stage) + 8 * L::STAGES;
    }
};

template <int WIDTH, int CLUSTER>
struct tile {
    int number, down, across;

    __device__ tile(const many_call &c)
    {
        number = blockIdx.x / CLUSTER;
        down = number / c.columns;
        across = number % c.columns;
    }
    __device__ void next(const many_call &c, const block<WIDTH, CLUSTER> &b)
    {
        number += gridDim.x / CLUSTER;
        down += b.rows;
        across += b.columns;
        if (across < c.columns) return;
        across -= c.columns;
        down++;
    }
    __device__ int row(const block<WIDTH, CLUSTER> &b) const
    {
        return (down * CLUSTER + b.rank) * ROWS;
    }
    __device__ int column() const
    {
        return across * WIDTH;
    }
};

template <int CLUSTER>
__device__ void sync_blocks()
{
    __syncwarp();
    __syncthreads();
    if (CLUSTER > 1) asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
}

/* One thread. Weights do not change during a run: their first slices come before the results of the kernel before. */
template <int WIDTH, int CLUSTER>
__device__ void produce(const many_call &c, const block<WIDTH, CLUSTER> &b)
{
    typedef layout<WIDTH> L;
    const int part = WIDTH / CLUSTER;
    place<L::STAGES> at;
    tile<WIDTH, CLUSTER> t(c);
    int early = 0;

    const auto load_w = [&](int slice) {
        barrier_expect(b.full(at.stage), L::STAGE_BYTES);
        if (CLUSTER == 1) load_tile(b.w(at.stage), &c.w, slice * SLICE, t.column(), b.full(at.stage));
        else
            load_tile_for(b.w(at.stage) + b.rank * part * ROW_BYTES, &c.w, slice * SLICE, t.column() + b.rank * part,
                          b.full(at.stage), (1 << CLUSTER) - 1);
    };
    for (; early < L::STAGES && early < c.slices; early++, at.next()) load_w(early);
    wait_for_results();
    at = place<L::STAGES>();
    for (; t.number < c.tiles; t.next(c, b)) {
        const int row = t.row(b);
        for (int slice = 0; slice < c.slices; slice++, at.next()) {
            if (early > 0) early--;
            else {
                barrier_wait(b.empty(at.stage), at.phase ^ 1);
                load_w(slice);
            }
            load_tile(b.x(at.stage), &c.x, slice * SLICE, row, b.full(at.stage));
        }
    }
}

/* A tile's part of a warpgroup that waits for its end: pairs of sums, rounded. */
template <int WIDTH>
struct waiting {
    uint32_t sums[WIDTH / 4];
    int row, column;
    bool any;
};

template <bool bf16, int WIDTH>
__device__ void put_by(waiting<WIDTH> &t, const float (&sums)[WIDTH / 2])
{
#pragma unroll
    for (int i = 0; i < WIDTH / 4; i++) t.sums[i] = float_to_halves(sums[2 * i], sums[2 * i + 1], bf16 ? TFI_BF16 : TFI_F16);
}

__device__ inline void store_matrices(uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

/* The end of 32 columns. Of two pieces a chunk is made, which the copy engine stores; while it does, the other chunk is filled.
 */
template <bool bf16, int WIDTH>
__device__ void end_piece(const many_call &c, const waiting<WIDTH> &t, int piece, uint32_t out)
{
    const tfi_dtype type = bf16 ? TFI_BF16 : TFI_F16;
    const int lane = threadIdx.x % WARPGROUP % 32, warp = threadIdx.x % WARPGROUP / 32;
    const uint32_t chunk = out + piece / 2 % 2 * CHUNK_BYTES, row = 16 * warp + lane % 16;

#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
        uint32_t halves[4];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const int block = piece * 4 + pair * 2 + k, column = t.column + block * 8 + lane % 4 * 2;
            float2 bias = make_float2(0, 0);
            if (c.bias && column < c.N) bias = __ldg((const float2 *)(c.bias + column));
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const uint32_t bits = t.sums[2 * block + half];
                const float low = half_to_float(bits & 0xffff, type), high = half_to_float(bits >> 16, type);
                halves[2 * k + half] = float_to_halves(gelu(low + bias.x), gelu(high + bias.y), type);
            }
        }
        const uint32_t place = piece % 2 * 4 + pair * 2 + lane / 16;
        store_matrices(chunk + row * ROW_BYTES + ((place ^ row % 8) << 4), halves[0], halves[1], halves[2], halves[3]);
    }
    if (piece % 2 == 0) return;
    show_to_copies();
    if (threadIdx.x % WARPGROUP == 0) stores_have_read();
    asm volatile("bar.sync %0, 128;" ::"r"(threadIdx.x / WARPGROUP + 1) : "memory");
    if (threadIdx.x % WARPGROUP == 0 && t.any) store_tile(&c.y, t.column + piece / 2 * CHUNK, t.row, chunk);
}

template <bool bf16, int WIDTH, int CLUSTER>
struct consumer {
    typedef layout<WIDTH> L;
    const many_call &c;
    const block<WIDTH, CLUSTER> &b;
    place<L::STAGES> at;
    int group, last = -1; /* last: the stage whose products may be under way */

    __device__ void release(int stage)
    {
        if (threadIdx.x % 32 != 0) return;
        if (CLUSTER == 1) barrier_arrive(b.empty(stage));
        else
            for (int k = 0; k < CLUSTER; k++) barrier_arrive(b.empty(stage), k);
    }

    __device__ void start_slice(float (&sums)[WIDTH / 2], int add)
    {
        barrier_wait(b.full(at.stage), at.phase);
        const uint64_t x = tile_descriptor(b.x(at.stage) + group * CHUNK_BYTES), w = tile_descriptor(b.w(at.stage));
        products_begin();
#pragma unroll
        for (int k = 0; k < SLICE / 16; k++) multiply<bf16>(sums, x + 2 * k, w + 2 * k, add | k); /* 32 bytes on */
        products_commit();
    }

    /* Those of the slice before are over. */
    __device__ void follow_slice()
    {
        products_wait<1>();
        if (last >= 0) release(last);
        last = at.stage;
        at.next();
    }

    __device__ void run()
    {
        const uint32_t out = b.shared + L::OUT + group * 2 * CHUNK_BYTES;
        float sums[WIDTH / 2];
        waiting<WIDTH> t;

        t.any = false;
        t.row = t.column = 0;
#pragma unroll
        for (int i = 0; i < WIDTH / 4; i++) t.sums[i] = 0;
        for (tile<WIDTH, CLUSTER> next(c); next.number < c.tiles; next.next(c, b)) {
#pragma unroll
            for (int piece = 0; piece < L::PIECES; piece++) {
                start_slice(sums, piece);
                end_piece<bf16>(c, t, piece, out);
                follow_slice();
            }
            for (int slice = L::PIECES; slice < c.slices; slice++) {
                start_slice(sums, 1);
                follow_slice();
            }
            products_wait<0>();
            release(last);
            last = -1;
            put_by<bf16>(t, sums);
            t.row = next.row(b) + group * 64;
            t.column = next.column();
            t.any = true;
        }
#pragma unroll
        for (int piece = 0; piece < L::PIECES; piece++) end_piece<bf16>(c, t, piece, out);
        stores_are_done();
    }
};

#endif

template <bool bf16, int WIDTH, int CLUSTER>
__global__ void __launch_bounds__(THREADS, 1) many(const __grid_constant__ many_call c)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) unsigned char memory[];
    typedef layout<WIDTH> L;
    const block<WIDTH, CLUSTER> b(c, memory);
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / WARPGROUP, 0); /* known to be the same for a warp */

    follow();
    if (threadIdx.x == 0) {
        for (int i = 0; i < L::STAGES; i++) {
            barrier_init(b.full(i), 1);
            barrier_init(b.empty(i), CONSUMER_WARPS * CLUSTER);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    sync_blocks<CLUSTER>();
    if (group == 2) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x / 32 == 2 * WARPGROUP / 32 && one_of_warp()) produce<WIDTH, CLUSTER>(c, b);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        wait_for_results();
        consumer<bf16, WIDTH, CLUSTER> consumer = {c, b, place<L::STAGES>(), group};
        consumer.run();
    }
    if (CLUSTER > 1) sync_blocks<CLUSTER>(); /* the other's copies and arrivals come here */
#endif
}

/* ---- host ---- */

typedef CUresult (*encoder)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                            const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* Boxes of 64 columns; what is beyond the edges reads as zeros and is not written. */
bool describe(const tfi_many_args *a, CUtensorMap *map, const void *p, int64_t rows, int64_t cols, int box_rows)
{
    const cuuint64_t size[2] = {(cuuint64_t)cols, (cuuint64_t)rows}, stride[1] = {(cuuint64_t)cols * 2};
    const cuuint32_t box[2] = {SLICE, (cuuint32_t)box_rows}, steps[2] = {1, 1};
    return ((encoder)a->encode)(map, a->type == TFI_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                                2, (void *)p, size, stride, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <bool bf16, int WIDTH, int CLUSTER>
tf_status launch(const tfi_cuda_launch *l, const tfi_many_args *a)
{
    many_call c;
    c.bias = a->bias;
    c.N = (int)a->N;
    c.slices = (int)blocks_of(a->K, SLICE);
    c.columns = (int)blocks_of(a->N, WIDTH);
    c.tiles = (int)blocks_of(a->M, ROWS * CLUSTER) * c.columns;
    if (!describe(a, &c.x, a->x, a->M, a->K, ROWS) || !describe(a, &c.w, a->w, a->N, a->K, WIDTH / CLUSTER) ||
        !describe(a, &c.y, a->y, a->M, a->N, 64))
        return tfi_fail(TF_STATUS_DEVICE, "LINEAR: no map for the copy engine of [%lld, %lld] and [%lld, %lld]",
                        (long long)a->M, (long long)a->K, (long long)a->N, (long long)a->K);
    const int bytes = layout<WIDTH>::BYTES, clusters = l->multiprocessors / CLUSTER;
    const cudaError_t error =
        cudaFuncSetAttribute(many<bf16, WIDTH, CLUSTER>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return started("LINEAR", error);
    return start_clusters(l, "LINEAR", CLUSTER, many<bf16, WIDTH, CLUSTER>, (c.tiles < clusters ? c.tiles : clusters) * CLUSTER,
                          THREADS, (size_t)bytes, c);
}

} // namespace

/* Below 4096 rows there are too few tiles: the matrix library and FINISH are faster. */
extern "C" int tfi_cuda_many_fits(const tfi_many_args *a, int capability)
{
#if defined(TFI_KERNELS_WGMMA)
    return capability == 90 && a->encode && a->type != TFI_F32 && a->activation == TFI_ACT_GELU && a->M >= 4096 &&
           a->K > layout<256>::PIECES * SLICE - SLICE && a->K % 8 == 0 && in_vectors(a->N, a->x, a->w, a->bias, a->y);
#else
    (void)a, (void)capability;
    return 0;
#endif
}

extern "C" tf_status tfi_cuda_many(const tfi_cuda_launch *l, const tfi_many_args *a)
{
    return a->type == TFI_BF16 ? launch<true, 256, 1>(l, a) : launch<false, 256, 1>(l, a);
}
