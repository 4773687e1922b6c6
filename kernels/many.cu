/* LINEAR of many rows with GELU (the erf form, which the matrix library has not) at its end, or nothing but bias where rows are
 * very many: y = act(x w^T + bias)
 *
 * Shapes    x [M, K], w [N, K], y [M, N] of one 16-bit type; bias [N] fp32; sums, which begin as the bias, fp32, rounded to
 *           the type once before the activation, which in fp16 is computed in pairs of fp16
 * Parallel  A block a multiprocessor, which takes tiles of 128 rows and 256 or 128 columns in turn. One thread has the copy
 *           engine fill a ring of slices of x and w, 64 columns each; two warpgroups multiply, 64 rows each. A finished tile
 *           waits in registers, rounded to 16 bits, while the next one is multiplied: its end is computed 32 columns a slice.
 *           A warpgroup that has started a product does not get far before the product is over, so the two take turns: while
 *           one starts the products of a slice, the other computes ends.
 * Needs     9.0 exactly (wgmma); K % 8 == 0, N % 32 == 0, 16-byte aligned buffers, slices enough to hide the end behind
 * Floor     M=49152, N=3072, K=768: 232 GFLOP / 800 TFLOP/s = 290 us, which is also what this kernel takes without the end
 * Measured  H200, in fp16, in BERT-base of 128 x 384, where power is short: 344 us, 675 TFLOP/s, with GELU in fp32 414 (the
 *           library's other products 628 TFLOP/s): so Q, K and V come by it too, which takes 17.6 ms in place of 17.9,
 *           BERT-large 56.7 in place of 57.4; with the narrow products as well 18.2 and 57.7. Alone M=22110 162 us (the
 *           library and FINISH 230), 4096 30 (44), 2048 17 (26), 512 7.1 (9.0)
 * Tried     no turns: 372 us; with the end between the products of a slice 388, with a quarter of it after each product 385;
 *           turns of half a slice 361, only in slices with an end 355; pairs of blocks that fetch w for each other 359,
 *           M=22110 195. RELU in GELU's place: 323. All of these with GELU in fp32, whose 230 instructions for
 *           32 columns took a warp about 1000 cycles while products ran; pairs in fp16 are half of them. */
#include "hopper.cuh"

#include "activation.cuh"
#include "types.cuh"

namespace
{

enum {
    ROWS = 128,
    SLICE = 64,
    WARPGROUP = 128,
    THREADS = 3 * WARPGROUP,
    PIECE = 32,
    CHUNK = 64,
    CONSUMER_WARPS = 8,
    PLAIN_ROWS = 8192
};
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

/* Addresses in a block's shared memory. */
template <int WIDTH>
struct block {
    typedef layout<WIDTH> L;
    uint32_t shared;

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

/* A block's walk over its tiles, beside one another first, without divisions on the way. */
template <int WIDTH>
struct tile {
    int number, down, across, step_down, step_across;

    __device__ tile(const many_call &c)
    {
        number = blockIdx.x;
        down = number / c.columns;
        across = number % c.columns;
        step_down = gridDim.x / c.columns;
        step_across = gridDim.x % c.columns;
    }
    __device__ void next(const many_call &c)
    {
        number += gridDim.x;
        down += step_down;
        across += step_across;
        if (across < c.columns) return;
        across -= c.columns;
        down++;
    }
    __device__ int row() const
    {
        return down * ROWS;
    }
    __device__ int column() const
    {
        return across * WIDTH;
    }
};

/* One thread. Weights do not change during a run: their first slices come before the results of the kernel before. */
template <int WIDTH>
__device__ void produce(const many_call &c, const block<WIDTH> &b)
{
    typedef layout<WIDTH> L;
    place<L::STAGES> at;
    tile<WIDTH> t(c);
    int early = 0;

    const auto load_w = [&](int slice) {
        barrier_expect(b.full(at.stage), L::STAGE_BYTES);
        load_tile(b.w(at.stage), &c.w, slice * SLICE, t.column(), b.full(at.stage));
    };
    for (; early < L::STAGES && early < c.slices; early++, at.next()) load_w(early);
    wait_for_results();
    at = place<L::STAGES>();
    for (; t.number < c.tiles; t.next(c)) {
        const int row = t.row();
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

/* A tile's part of a warpgroup that waits for its end: pairs of sums and bias, rounded. */
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

__device__ inline void store_matrices(uint32_t at, uint32_t upper, uint32_t lower)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(at), "r"(upper), "r"(lower) : "memory");
}

/* The activation of a pair. In bf16 it would not do in the type itself. */
template <bool bf16, bool GELU>
__device__ uint32_t activate_halves(uint32_t v)
{
    if (!GELU) return v;
    if (!bf16) return gelu_of_halves(v);
    const float low = half_to_float(v & 0xffff, TFI_BF16), high = half_to_float(v >> 16, TFI_BF16);
    return float_to_halves(gelu_for_half(low), gelu_for_half(high), TFI_BF16);
}

/* The end of 8 columns: of the tile the `block`th, of their chunk the `place`th. */
template <bool bf16, bool GELU, int WIDTH>
__device__ void end_block(const waiting<WIDTH> &t, int block, uint32_t chunk, int place)
{
    const uint32_t row = threadIdx.x % WARPGROUP / 32 * 16 + threadIdx.x % 16;

    store_matrices(chunk + row * ROW_BYTES + ((place ^ row % 8) << 4), activate_halves<bf16, GELU>(t.sums[2 * block]),
                   activate_halves<bf16, GELU>(t.sums[2 * block + 1]));
}

/* A chunk is whole: the copy engine stores it, and has read the one before, which may be filled. */
template <int WIDTH>
__device__ void end_chunk(const many_call &c, const waiting<WIDTH> &t, int column, uint32_t chunk)
{
    before_copies();
    if (threadIdx.x % WARPGROUP == 0) stores_have_read();
    asm volatile("bar.sync %0, 128;" ::"r"(threadIdx.x / WARPGROUP + 1) : "memory");
    if (threadIdx.x % WARPGROUP == 0) store_tile(&c.y, t.column + column, t.row, chunk);
}

/* The warpgroups start their products in turns. */
__device__ inline void wait_for_turn(int group)
{
    asm volatile("bar.sync %0, 256;" ::"r"(3 + group) : "memory");
}

__device__ inline void give_turn(int group)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(3 + group) : "memory");
}

template <bool bf16, bool GELU, int WIDTH>
struct consumer {
    typedef layout<WIDTH> L;
    const many_call &c;
    const block<WIDTH> &b;
    place<L::STAGES> at;
    int group;

    /* A tile's sums begin as its bias. */
    __device__ void begin_sums(float (&sums)[WIDTH / 2], int column)
    {
#pragma unroll
        for (int piece = 0; piece < L::PIECES; piece++) {
            const float2 *from = (const float2 *)(c.bias + min(column + piece * PIECE, c.N - PIECE)) + threadIdx.x % 4;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const float2 bias = __ldg(from + 4 * k);
                float *const four = sums + piece * (PIECE / 2) + 4 * k;
                four[0] = four[2] = bias.x;
                four[1] = four[3] = bias.y;
            }
        }
#pragma unroll
        for (int i = 0; i < WIDTH / 2; i++) asm volatile("" : "+f"(sums[i])::"memory"); /* before products begin */
    }

    __device__ void end_piece(const waiting<WIDTH> &t, int piece)
    {
        const uint32_t chunk = b.shared + L::OUT + (group * 2 + piece / 2 % 2) * CHUNK_BYTES;
#pragma unroll
        for (int k = 0; k < 4; k++) end_block<bf16, GELU>(t, piece * 4 + k, chunk, piece % 2 * 4 + k);
        if (piece % 2 == 1) end_chunk(c, t, piece / 2 * CHUNK, chunk);
    }

    __device__ void release()
    {
        if (threadIdx.x % 32 == 0) barrier_arrive(b.empty(at.stage));
        at.next();
    }

    /* Products of a slice; while the other warpgroup has its turn, the end of 32 columns of the tile before. */
    __device__ void multiply_slice(float (&sums)[WIDTH / 2], const waiting<WIDTH> &t, int piece)
    {
        barrier_wait(b.full(at.stage), at.phase);
        const uint64_t x = tile_descriptor(b.x(at.stage) + group * CHUNK_BYTES), w = tile_descriptor(b.w(at.stage));
        wait_for_turn(group);
        products_begin();
#pragma unroll
        for (int k = 0; k < SLICE / 16; k++) multiply<bf16>(sums, x + 2 * k, w + 2 * k, 1); /* 32 bytes on */
        products_commit();
        give_turn(1 - group);
        if (piece >= 0 && t.any) end_piece(t, piece);
        products_wait<0>();
        release();
    }

    __device__ void run()
    {
        float sums[WIDTH / 2];
        waiting<WIDTH> t;

        t.any = false;
        t.row = t.column = 0;
#pragma unroll
        for (int i = 0; i < WIDTH / 4; i++) t.sums[i] = 0;
        if (group == 1) give_turn(0);
        for (tile<WIDTH> next(c); next.number < c.tiles; next.next(c)) {
            begin_sums(sums, next.column());
#pragma unroll
            for (int piece = 0; piece < L::PIECES; piece++) multiply_slice(sums, t, piece);
            for (int slice = L::PIECES; slice < c.slices; slice++) multiply_slice(sums, t, -1);
            put_by<bf16>(t, sums);
            t.row = next.row() + group * 64;
            t.column = next.column();
            t.any = true;
        }
        if (group == 0) wait_for_turn(0); /* the last one given */
#pragma unroll
        for (int piece = 0; piece < L::PIECES; piece++) end_piece(t, piece);
        stores_are_done();
    }
};

#endif

template <bool bf16, bool GELU, int WIDTH>
__global__ void __launch_bounds__(THREADS, 1) many(const __grid_constant__ many_call c)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) unsigned char memory[];
    typedef layout<WIDTH> L;
    const block<WIDTH> b = {shared_address(memory)};
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / WARPGROUP, 0); /* known to be the same for a warp */

    follow();
    if (threadIdx.x == 0) {
        for (int i = 0; i < L::STAGES; i++) {
            barrier_init(b.full(i), 1);
            barrier_init(b.empty(i), CONSUMER_WARPS);
        }
        barriers_are_there();
    }
    __syncthreads();
    if (group == 2) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x / 32 == 2 * WARPGROUP / 32 && one_of_warp()) produce<WIDTH>(c, b);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        wait_for_results();
        consumer<bf16, GELU, WIDTH> consumer = {c, b, place<L::STAGES>(), group};
        consumer.run();
    }
#endif
}

/* ---- host ---- */

template <bool bf16, bool GELU, int WIDTH>
tf_status launch(const tfi_cuda_launch *l, const tfi_many_args *a)
{
    many_call c;
    c.bias = a->bias;
    c.N = (int)a->N;
    c.slices = (int)blocks_of(a->K, SLICE);
    c.columns = (int)blocks_of(a->N, WIDTH);
    c.tiles = (int)blocks_of(a->M, ROWS) * c.columns;
    if (!map_tiles(a->encode, &c.x, bf16, a->x, a->M, a->K, ROWS) ||
        !map_tiles(a->encode, &c.w, bf16, a->w, a->N, a->K, WIDTH) || !map_tiles(a->encode, &c.y, bf16, a->y, a->M, a->N, 64))
        return tfi_fail(TF_STATUS_DEVICE, "LINEAR: no map for the copy engine of [%lld, %lld] and [%lld, %lld]",
                        (long long)a->M, (long long)a->K, (long long)a->N, (long long)a->K);
    const int bytes = layout<WIDTH>::BYTES;
    const cudaError_t error = cudaFuncSetAttribute(many<bf16, GELU, WIDTH>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return started("LINEAR", error);
    return start(l, "LINEAR", many<bf16, GELU, WIDTH>, min(c.tiles, l->multiprocessors), THREADS, (size_t)bytes, c);
}

/* How often a block must take a tile. */
int64_t rounds(const tfi_cuda_launch *l, const tfi_many_args *a, int width)
{
    return blocks_of((int64_t)blocks_of(a->M, ROWS) * blocks_of(a->N, width), l->multiprocessors);
}

template <bool bf16, bool GELU>
tf_status launch_sized(const tfi_cuda_launch *l, const tfi_many_args *a)
{
    return rounds(l, a, 128) < 2 * rounds(l, a, 256) ? launch<bf16, GELU, 128>(l, a) : launch<bf16, GELU, 256>(l, a);
}

template <bool bf16>
tf_status launch_typed(const tfi_cuda_launch *l, const tfi_many_args *a)
{
    return a->activation == TFI_ACT_GELU ? launch_sized<bf16, true>(l, a) : launch_sized<bf16, false>(l, a);
}

} // namespace

/* With fewer rows the matrix library and FINISH are as fast. */
extern "C" int tfi_cuda_many_fits(const tfi_many_args *a, int capability)
{
#if defined(TFI_SM_90A)
    const bool form = a->activation == TFI_ACT_GELU ? a->M > 256
                                                    : a->activation == TFI_ACT_NONE && a->M >= PLAIN_ROWS && a->N > a->K;
    return capability == 90 && a->encode && a->bias && a->type != TFI_F32 && form && a->N % PIECE == 0 &&
           a->K > (layout<256>::PIECES - 1) * SLICE && a->K % 8 == 0 && in_vectors(a->N, a->x, a->w, a->bias, a->y);
#else
    (void)a, (void)capability;
    return 0;
#endif
}

extern "C" tf_status tfi_cuda_many(const tfi_cuda_launch *l, const tfi_many_args *a)
{
    return a->type == TFI_BF16 ? launch_typed<true>(l, a) : launch_typed<false>(l, a);
}
