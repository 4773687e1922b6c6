/* LINEAR of 9 to 64 rows on wgmma: the part of tfi_cuda_few() for devices of 9.0, where few_tiles.cu would be slower.
 *
 * Shapes    x [M, K], w [N, K] in BF16 or F16; y [M, N] (gated: [M, N / 2]) in any type, with bias, activation, residual
 * Parallel  w is the left operand: a warpgroup has 64 rows of it (gated: 32 of each half), and 16, 32 or 64 tokens are the
 *           columns. Blocks of a cluster share K; each gets the sums of some tokens straight into its shared memory, adds them
 *           up in the order of the blocks and finishes them. Tokens are shared out too where that leaves less to exchange.
 *           One thread has the copy engine bring slices of 64 columns: those of w that the ring holds before the results of
 *           the kernel before are waited for, x after it, once. Where there are more tiles than multiprocessors, a block goes
 *           from tile to tile, x stays and the ring goes on.
 *           Where logits are for GREEDY alone, they are not written: a thread looks for the best of its columns of a token.
 * Needs     K % 8 == 0, x and w aligned to 16 bytes, a block's part of x beside four stages of the ring in shared memory
 * Floor     2 * N * K bytes of w at 4.55 TB/s (768 x 768: 0.3 us, 3072 x 768: 1.0 us, 50257 x 768: 17 us, and 3 us for what it
 *           writes) and 0.72 us from a kernel to the next; expected: 3.2 us for the products of GPT-2, 21 us for its head.
 * Measured  H200, CUDA 13.0, 2026-11-21: dependent launches in a graph, weights from memory, N x K (few_tiles.cu; cuBLASLt):
 *           64 rows: 2304 x 768 3.7 us (6.0; 5.0), 768 x 768 3.0 (4.4; 4.2), 3072 x 768 4.3 (7.5; 5.1), 768 x 3072 4.3 (6.1;
 *           7.9), 50257 x 768 24 (41; 113), keys 22.5
 *           16 rows: 2304 x 768 2.7 (3.4; 4.3), 768 x 768 2.4 (2.6; 4.1), 3072 x 768 3.0 (4.1; 5.1), 768 x 3072 3.3 (3.9;
 *           7.3), 12288 x 1024 8.0 (8.5; 8.8), 16384 x 1024 9.6 (10.7; 10.3), 1024 x 16384 12.0 (11.8; 13.6)
 *           A layer of BERT-base in a chain of layers: 32 rows 20.0 us, where rings of 8 and 6 stages made it 21.3; 48 rows
 *           21.2, where blocks with all of K for 2304 columns made it 21.8
 *           Weights of many tiles leave the cache of the device first: a head takes 1 us less, and with the layers behind it,
 *           whose instructions are still there, GPT-2 4 us less of a step of 64 sequences
 * Tried     x brought once for a cluster of tiles, by copies to several blocks: nothing gained, 0.1 to 0.4 us lost. Several
 *           slices a copy: no difference. Blocks that begin at different slices: 0.3 us lost. 64 tokens a block with K shared
 *           out: 0.2 to 0.6 us lost. The norm before it on the way, its rows shared out in a cluster and sent to all blocks of
 *           it, by stores of 16 bytes or copies of tiles: 5 us lost. The end of a tile of the head element by element through
 *           one body of code: 45 us. Of keys, looking at every logit by itself: 30 us. In a layer of GPT-2 for 64 sequences: a
 *           warp that rehearses the end, as in mid.cu, 0.5 us lost, and 1.9 of 16; slices of w that find no room in the ring
 *           asked into the cache: no difference; all weights leaving the cache first: up to 0.4 lost.
 *           The norm behind it in clusters of 12 blocks that have whole rows of 16 or 32 tokens (768 x 768): a layer of
 *           BERT-base takes 0.5 us less of 48 rows in a chain of layers, 1.2 of 16, but the model of 1 x 40 6 us more, 1 x 16
 *           9 us less; with 3072 columns of x a layer takes 5 us more. */
#include "few.cuh"
#include "greedy.cuh"
#include "hopper.cuh"

namespace
{

/* ROWS: of w in a tile. SLICE: columns of x and w that come together, 128 bytes. */
enum { ROWS = 64, SLICE = 64, STAGE_BYTES = ROWS * SLICE * 2, GROUP = 128, THREADS = GROUP + WARP, SPLIT_MOST = 8 };
/* A slot: 16 rows of w by 8 tokens, one float4 a lane. A row of finished sums: tokens whose neighbours lie in other banks. */
enum { SLOT_BYTES = 16 * WARP, OUT_STRIDE = ROWS + 4, STAGES_LEAST = 4, STAGES_MOST = 16 };

struct wgmma_call {
    CUtensorMap x, w;
    few_call few;
    int split;                              /* blocks that share a tile, along K */
    int tiles;                              /* of ROWS rows of w */
    int each, more;                         /* slices of a block; those of the first `more` have one more */
    int depth;                              /* stages of the ring */
    int vectors;                            /* y, residual and bias can be had 8 columns at a time */
    int x_at, out_at, sums_at, barriers_at; /* in shared memory, behind the ring */
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- shared memory ---- */

template <int TOKENS>
struct block {
    static constexpr int X_BYTES = TOKENS * SLICE * 2;
    const wgmma_call &c;
    uint32_t shared;
    int rank, begin, slices, token; /* token: the first */

    __device__ block(const wgmma_call &call, void *memory)
        : c(call), shared(shared_address(memory)), rank((int)blockIdx.x), begin(rank * c.each + min(rank, c.more)),
          slices(c.each + (rank < c.more)), token((int)blockIdx.z * TOKENS)
    {
    }
    __device__ uint32_t w(int stage) const
    {
        return shared + stage * STAGE_BYTES;
    }
    __device__ uint32_t x(int slice) const
    {
        return shared + c.x_at + slice * X_BYTES;
    }
    __device__ uint32_t full(int stage) const
    {
        return shared + c.barriers_at + 8 * stage;
    }
    __device__ uint32_t empty(int stage) const
    {
        return full(c.depth + stage);
    }
    __device__ uint32_t x_full(int slice) const
    {
        return full(2 * c.depth + slice);
    }
    __device__ uint32_t received() const
    {
        return full(2 * c.depth + c.each + 1);
    }
    __device__ void init_barriers() const
    {
        for (int i = 0; i < c.depth; i++) {
            barrier_init(full(i), 1);
            barrier_init(empty(i), GROUP / WARP);
        }
        for (int i = 0; i <= c.each + 1; i++) barrier_init(x_full(i), 1); /* and received() */
        barriers_are_there();
    }
};

__device__ void group_sync()
{
    asm volatile("bar.sync 1, 128;" ::: "memory");
}

__device__ void cluster_arrive()
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

__device__ void cluster_wait()
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* ---- the copy engine's part: one thread ---- */

template <int TOKENS>
struct producer {
    const block<TOKENS> &b;
    ring_place at;
    int tile, slice = 0;

    __device__ producer(const block<TOKENS> &of) : b(of), tile((int)blockIdx.y)
    {
    }

    __device__ void load_w()
    {
        const tfi_few_args &a = b.c.few.a;
        const int row = a.gated ? tile * (ROWS / 2) : tile * ROWS;
        const uint32_t to = b.w(at.stage), barrier = b.full(at.stage);
        barrier_expect(barrier, STAGE_BYTES);
        const int column = (b.begin + slice) * SLICE, other = row + (a.gated ? (int)a.N / 2 : ROWS / 2);
        if (b.c.tiles > (int)gridDim.y) { /* as much as the cache holds, which has instructions of the next layers */
            load_tile_once(to, &b.c.w, column, row, barrier);
            load_tile_once(to + STAGE_BYTES / 2, &b.c.w, column, other, barrier);
        } else {
            load_tile(to, &b.c.w, column, row, barrier);
            load_tile(to + STAGE_BYTES / 2, &b.c.w, column, other, barrier);
        }
        at.next(b.c.depth);
        if (++slice < b.slices) return;
        slice = 0;
        tile += (int)gridDim.y;
    }

    __device__ void begin()
    {
        for (int i = 0; i < b.c.depth && tile < b.c.tiles; i++) load_w();
        prefetch_map(&b.c.x);
    }

    __device__ void load_x() const
    {
        for (int i = 0; i < b.slices; i++) {
            barrier_expect(b.x_full(i), b.X_BYTES);
            load_tile(b.x(i), &b.c.x, (b.begin + i) * SLICE, b.token, b.x_full(i));
        }
    }

    __device__ void go_on()
    {
        while (tile < b.c.tiles) {
            barrier_wait(b.empty(at.stage), at.phase ^ 1);
            load_w();
        }
    }
};

/* ---- the end of a tile ---- */

__device__ void write_float(uint32_t to, float v)
{
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(v) : "memory");
}

__device__ float read_float(uint32_t from)
{
    float v;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(from) : "memory");
    return v;
}

__device__ float4 read_four(uint32_t from)
{
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

/* A lane's part of a slot, to rows of tokens. out: the slot's first token and row of w. */
__device__ void lay_out(uint32_t out, const float (&v)[4])
{
    const int lane = threadIdx.x % WARP;
    const uint32_t at = out + (lane % 4 * 2 * OUT_STRIDE + lane / 4) * 4;
    write_float(at, v[0]);
    write_float(at + OUT_STRIDE * 4, v[1]);
    write_float(at + 32, v[2]);
    write_float(at + OUT_STRIDE * 4 + 32, v[3]);
}

/* Sums of the live tokens, eight by eight, to the blocks that finish them; this block's, all added up, laid out. Number i of
 * a block's eights is number i * split + rank of all. */
template <int TOKENS>
__device__ void exchange(const block<TOKENS> &b, const float (&sums)[TOKENS / 2], int eights)
{
    const int split = b.c.split, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP,
              owned = (eights - b.rank + split - 1) / split;
    const int most = (TOKENS / 8 + split - 1) / split;
    const uint32_t received = b.shared + b.c.sums_at + warp * SLOT_BYTES + lane * 16;
    int owner = 0, number = 0;

    if (threadIdx.x == 0 && owned > 0) barrier_expect(b.received(), owned * split * (GROUP / WARP) * SLOT_BYTES);
#pragma unroll
    for (int i = 0; i < TOKENS / 8; i++) {
        const float v[4] = {sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]};
        if (i < eights) few_send(received + (b.rank * most + number) * (GROUP / WARP) * SLOT_BYTES, b.received(), owner, v);
        if (++owner < split) continue;
        owner = 0;
        number++;
    }
    if (owned <= 0) return;
    few_wait_to_receive(b.received());
    for (int i = 0; i < owned; i++) {
        float total[4] = {0, 0, 0, 0};
#pragma unroll 4
        for (int k = 0; k < split; k++) few_add(total, received + (k * most + i) * (GROUP / WARP) * SLOT_BYTES);
        lay_out(b.shared + b.c.out_at + (i * 8 * OUT_STRIDE + warp * 16) * 4, total);
    }
}

/* Tests one after the other: a switch's table would come from memory each time a kernel starts. */
template <int V>
__device__ void activate_all(tfi_activation activation, float (&v)[V])
{
    if (activation == TFI_ACT_NONE) return;
    if (activation == TFI_ACT_GELU_TANH) activate<V>(TFI_ACT_GELU_TANH, v);
    else if (activation == TFI_ACT_GELU) activate<V>(TFI_ACT_GELU, v);
    else if (activation == TFI_ACT_RELU) activate<V>(TFI_ACT_RELU, v);
    else if (activation == TFI_ACT_SILU) activate<V>(TFI_ACT_SILU, v);
    else if (activation == TFI_ACT_TANH) activate<V>(TFI_ACT_TANH, v);
    else activate<V>(TFI_ACT_SIGMOID, v);
}

/* What a thread finishes: V columns of every STEP'th of the block's tokens. What joins them is asked for before the
 * products. */
template <int TOKENS, int V>
struct finish {
    static constexpr int WIDE = ROWS / V, STEP = GROUP / WIDE, ITEMS = TOKENS / STEP;
    const wgmma_call &c;
    int token, rank, live, column, n, columns; /* column: in the tile */
    float bias[V], other[V];                   /* other: of the right half */
    raw_elements<V> residual[V == 8 ? ITEMS : 1];

    __device__ finish(const block<TOKENS> &b, int tile, int live_rows)
        : c(b.c), token(b.token), rank(b.rank), live(live_rows), column((int)threadIdx.x % WIDE * V)
    {
        const tfi_few_args &a = c.few.a;
        columns = (int)few_columns(a);
        n = tile * (a.gated ? ROWS / 2 : ROWS) + column;
        if (n >= columns || (a.gated && column >= ROWS / 2)) live = 0; /* nothing */
#pragma unroll
        for (int k = 0; k < V; k++) bias[k] = other[k] = 0;
        if (a.bias && live > 0) load<V>(a.bias, TFI_F32, n, bias);
        if (a.bias && live > 0 && a.gated) load<V>(a.bias, TFI_F32, n + a.N / 2, other);
    }
    /* Row of y of the block's token `local`. */
    __device__ int row(int local) const
    {
        return token + (local / 8 * c.split + rank) * 8 + local % 8;
    }
    __device__ int local(int item) const
    {
        return item * STEP + (int)threadIdx.x / WIDE;
    }
    __device__ bool is_mine(int item) const
    {
        return local(item) / 8 * c.split + rank < TOKENS / 8 && row(local(item)) < live;
    }
    __device__ void join()
    {
        const tfi_few_args &a = c.few.a;
        if constexpr (V == 8) {
            if (!a.residual) return;
#pragma unroll
            for (int i = 0; i < ITEMS; i++)
                if (is_mine(i)) residual[i] = load_raw<V>(a.residual, a.out, (int64_t)row(local(i)) * columns + n);
        }
    }
    /* Nothing but the bias joins floats, one at a time: the words of a language. */
    __device__ void store_plain(uint32_t out) const
    {
        const int first = token + (int)threadIdx.x / WIDE, count = (live - first + STEP - 1) / STEP;
        uint32_t from = out + ((int)threadIdx.x / WIDE * OUT_STRIDE + column) * 4;
        float *to = (float *)c.few.a.y + (int64_t)first * columns + n;
#pragma unroll 8
        for (int i = 0; i < min(count, ITEMS); i++, from += STEP * OUT_STRIDE * 4, to += (int64_t)STEP * columns)
            *to = read_float(from) + bias[0];
    }
    __device__ void store_all(uint32_t out) const
    {
        const tfi_few_args &a = c.few.a;
        if (V == 1 && a.out == TFI_F32 && c.split == 1 && !a.gated && !a.residual && a.activation == TFI_ACT_NONE) {
            store_plain(out);
            return;
        }
#pragma unroll(V == 8 ? ITEMS : 4)
        for (int i = 0; i < ITEMS; i++) {
            if (!is_mine(i)) continue;
            const uint32_t from = out + (local(i) * OUT_STRIDE + column) * 4;
            const int64_t at = (int64_t)row(local(i)) * columns + n;
            float v[V];
#pragma unroll
            for (int k = 0; k < V; k++) v[k] = read_float(from + 4 * k) + bias[k];
            activate_all<V>(a.activation, v);
            if (a.gated) {
#pragma unroll
                for (int k = 0; k < V; k++) v[k] *= read_float(from + ROWS * 2 + 4 * k) + other[k];
            }
            if (a.residual) {
                float joins[V];
                if (V == 8) widen(residual[V == 8 ? i : 0], a.out, joins);
                else load<V>(a.residual, a.out, at, joins);
#pragma unroll
                for (int k = 0; k < V; k++) v[k] += joins[k];
            }
            store(a.y, a.out, at, v);
        }
    }
};

/* ---- the end of a tile of logits, of which only the best is wanted ---- */

/* A thread has WIDE neighbouring columns of one token's, tile after tile: of equal logits it keeps the first. Draw m is of
 * token m. */
template <int TOKENS>
struct best_of_tiles {
    static constexpr int PARTS = GROUP / TOKENS, WIDE = ROWS / PARTS;
    const wgmma_call &c;
    int token, part;
    const tfi_slot *slot = NULL; /* NULL: nobody draws */
    tfi_sampling s = {};
    int32_t first_banned = -1, banned = 0; /* how many are */
    float best = -INFINITY, most = -INFINITY;
    uint32_t id = 0;

    __device__ best_of_tiles(const block<TOKENS> &b)
        : c(b.c), token(b.token + (int)threadIdx.x % TOKENS), part((int)threadIdx.x / TOKENS)
    {
        if (token >= min(few_live(c.few), c.few.live->draws)) return;
        slot = &c.few.a.slots[c.few.a.draws[token].slot];
        s = *slot->sampling;
        if (s.eos_count > 0) first_banned = s.eos[0];
    }
    /* What draws write is there. */
    __device__ void join()
    {
        if (slot && !may_end(s, __ldcg(&slot->count))) banned = s.eos_count;
        else first_banned = -1;
    }
    __device__ bool is_banned(uint32_t n) const
    {
        bool is = (int32_t)n == first_banned;
        for (int32_t i = 1; i < banned; i++) is |= s.eos[i] == (int32_t)n;
        return is;
    }
    /* NaN where one of them is. */
    __device__ static float higher(float a, float b)
    {
        float v;
        asm("max.NaN.f32 %0, %1, %2;" : "=f"(v) : "f"(a), "f"(b));
        return v;
    }
    __device__ void look(float logit, uint32_t n)
    {
        if (!(logit > best) || n >= c.few.a.N || is_banned(n)) return;
        best = logit;
        id = n;
    }
    /* out: of the tile's first column. Few fours of columns have a higher one than all before. */
    __device__ void add(uint32_t out, int tile)
    {
        const uint32_t from = out + ((int)threadIdx.x % TOKENS * OUT_STRIDE + part * WIDE) * 4;
        const uint32_t first = tile * ROWS + part * WIDE;
        const float *bias = c.few.a.bias;
#pragma unroll
        for (int i = 0; i < WIDE; i += 4) {
            float4 v = read_four(from + 4 * i);
            const uint32_t n = first + i;
            if (bias) {
                const uint32_t last = (uint32_t)c.few.a.N - 1;
                v.x += bias[min(n, last)];
                v.y += bias[min(n + 1, last)];
                v.z += bias[min(n + 2, last)];
                v.w += bias[min(n + 3, last)];
            }
            const float four = higher(higher(v.x, v.y), higher(v.z, v.w));
            most = higher(most, four);
            if (!(four > best)) continue;
            look(v.x, n);
            look(v.y, n + 1);
            look(v.z, n + 2);
            look(v.w, n + 3);
        }
    }
    __device__ void store() const
    {
        if (slot) ((uint64_t *)c.few.a.y)[(token * gridDim.y + blockIdx.y) * PARTS + part] = greedy_key(most, best, id);
    }
};

/* ---- the warpgroup's part ---- */

/* The products of a tile. */
template <bool bf16, int TOKENS>
__device__ void multiply_tile(const block<TOKENS> &b, ring_place &at, float (&sums)[TOKENS / 2])
{
    ring_place before;

    for (int slice = 0; slice < b.slices; slice++) {
        barrier_wait(b.x_full(slice), 0);
        barrier_wait(b.full(at.stage), at.phase);
        const uint64_t x = tile_descriptor(b.x(slice)), w = tile_descriptor(b.w(at.stage));
        products_begin();
#pragma unroll
        for (int k = 0; k < SLICE / 16; k++) multiply<bf16>(sums, w + 2 * k, x + 2 * k, slice | k); /* 32 bytes on */
        products_commit();
        products_wait<1>();
        if (slice > 0 && threadIdx.x % WARP == 0) barrier_arrive(b.empty(before.stage));
        before = at;
        at.next(b.c.depth);
    }
    products_wait<0>();
    if (threadIdx.x % WARP == 0) barrier_arrive(b.empty(before.stage));
}

template <int TOKENS>
__device__ void lay_out_all(uint32_t out, const float (&sums)[TOKENS / 2])
{
#pragma unroll
    for (int i = 0; i < TOKENS / 8; i++) {
        const float v[4] = {sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]};
        lay_out(out + (i * 8 * OUT_STRIDE + (int)threadIdx.x / WARP * 16) * 4, v);
    }
}

template <bool bf16, int TOKENS, int V>
__device__ void consume(const block<TOKENS> &b)
{
    const wgmma_call &c = b.c;
    const int live = few_live(c.few), eights = min(TOKENS, max(0, live - b.token) + 7) / 8;
    const uint32_t out = b.shared + c.out_at;
    ring_place at;
    float sums[TOKENS / 2];

    for (int tile = (int)blockIdx.y; tile < c.tiles; tile += (int)gridDim.y) {
        finish<TOKENS, V> end(b, tile, live);
        if (tile == (int)blockIdx.y) wait_for_results();
        end.join();
        multiply_tile<bf16, TOKENS>(b, at, sums);
        group_sync(); /* the tile before has been stored */
        if (c.split > 1) {
            cluster_wait();
            exchange<TOKENS>(b, sums, eights);
        } else {
            lay_out_all<TOKENS>(out, sums);
        }
        group_sync();
        end.store_all(out);
    }
}

template <bool bf16, int TOKENS>
__device__ void consume_logits(const block<TOKENS> &b)
{
    const uint32_t out = b.shared + b.c.out_at;
    best_of_tiles<TOKENS> end(b);
    ring_place at;
    float sums[TOKENS / 2];

    wait_for_results();
    end.join();
    for (int tile = (int)blockIdx.y; tile < b.c.tiles; tile += (int)gridDim.y) {
        multiply_tile<bf16, TOKENS>(b, at, sums);
        group_sync(); /* the tile before has been looked at */
        lay_out_all<TOKENS>(out, sums);
        group_sync();
        end.add(out, tile);
    }
    end.store();
}

#endif

template <bool bf16, int TOKENS>
__global__ void __launch_bounds__(THREADS) few_wgmma(const __grid_constant__ wgmma_call c)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char memory[];
    const block<TOKENS> b(c, memory);
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / WARP, 0); /* known to be the same for a warp */

    follow();
    if (threadIdx.x == 0) b.init_barriers();
    __syncthreads();
    if (c.split > 1) cluster_arrive();
    if (warp < GROUP / WARP) {
        if (c.few.a.draws) consume_logits<bf16, TOKENS>(b);
        else if (c.vectors) consume<bf16, TOKENS, 8>(b);
        else consume<bf16, TOKENS, 1>(b);
        return;
    }
    if (one_of_warp()) {
        producer<TOKENS> p(b);
        p.begin();
        wait_for_results();
        p.load_x();
        p.go_on();
    }
    __syncwarp();
    if (c.split > 1) cluster_wait();
#endif
}

/* ---- host ---- */

typedef CUresult (*encoder)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                            const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* Boxes of SLICE columns; what is beyond the edges reads as zeros. */
bool describe(const tfi_few_args *a, CUtensorMap *map, const void *p, int64_t rows, int box_rows)
{
    const cuuint64_t size[2] = {(cuuint64_t)a->K, (cuuint64_t)rows}, stride[1] = {(cuuint64_t)a->K * 2};
    const cuuint32_t box[2] = {SLICE, (cuuint32_t)box_rows}, steps[2] = {1, 1};
    return ((encoder)a->encode)(map, a->type == TFI_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                                2, (void *)p, size, stride, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* How a product is divided. */
struct plan {
    int tokens, split;
    int depth; /* of the ring, at most */
};

enum { MEMORY = 227 * 1024 };

/* Bytes of shared memory; more than MEMORY: there is no room. */
int complete(const tfi_few_args *a, const plan &p, int multiprocessors, wgmma_call *c, dim3 *grid)
{
    const int slices = (int)blocks_of(a->K, SLICE), parts = (int)blocks_of(a->M, p.tokens);
    const int most = (p.tokens / 8 + p.split - 1) / p.split;

    c->split = p.split;
    c->tiles = (int)blocks_of(few_columns(*a), a->gated ? ROWS / 2 : ROWS);
    c->each = slices / p.split;
    c->more = slices % p.split;
    const int held = c->each + (c->more > 0);
    const int fixed = held * p.tokens * SLICE * 2 + most * 8 * OUT_STRIDE * 4 +
                      (p.split > 1 ? p.split * most * (GROUP / WARP) * SLOT_BYTES : 0) + (2 * STAGES_MOST + held + 2) * 8;
    const int each_way = p.split > 1 || c->tiles * parts <= 2 * multiprocessors
                             ? 1
                             : (int)blocks_of(c->tiles * parts, multiprocessors); /* tiles of a block */
    *grid = dim3((unsigned)p.split, blocks_of(c->tiles, each_way), (unsigned)parts);
    c->depth = min(min(p.depth, held * each_way), max(STAGES_LEAST, (MEMORY - fixed) / STAGE_BYTES));
    c->x_at = c->depth * STAGE_BYTES;
    c->out_at = c->x_at + held * p.tokens * SLICE * 2;
    c->sums_at = c->out_at + most * 8 * OUT_STRIDE * 4;
    c->barriers_at = c->sums_at + (p.split > 1 ? p.split * most * (GROUP / WARP) * SLOT_BYTES : 0);
    return c->barriers_at + (2 * c->depth + c->each + 2) * 8;
}

template <bool bf16, int TOKENS>
tf_status launch(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows, const plan &p)
{
    wgmma_call c;
    dim3 grid;
    const int bytes = complete(a, p, l->multiprocessors, &c, &grid);

    c.few = {*a, l->live, rows};
    c.vectors = in_vectors(few_columns(*a), a->y, a->residual, a->bias);
    if (!describe(a, &c.x, a->x, a->M, TOKENS) || !describe(a, &c.w, a->w, a->N, ROWS / 2))
        return tfi_fail(TF_STATUS_DEVICE, "LINEAR: no map for the copy engine of [%lld, %lld] and [%lld, %lld]",
                        (long long)a->M, (long long)a->K, (long long)a->N, (long long)a->K);
    const cudaError_t error = cudaFuncSetAttribute(few_wgmma<bf16, TOKENS>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return started("LINEAR", error);
    return start_clusters(l, "LINEAR", (unsigned)p.split, few_wgmma<bf16, TOKENS>, grid, THREADS, (size_t)bytes, c);
}

template <bool bf16>
tf_status run_plan(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows, const plan &p)
{
    if (p.tokens == 16) return launch<bf16, 16>(l, a, rows, p);
    return p.tokens == 32 ? launch<bf16, 32>(l, a, rows, p) : launch<bf16, 64>(l, a, rows, p);
}

/* As measured, in chains of dependent launches. What is in no case here is left to others. */
bool choose(const tfi_few_args *a, plan *p)
{
    const bool few = a->M <= 16, one_part = a->M <= 32;
    wgmma_call c;
    dim3 grid;

    *p = {few ? 16 : 32, 1, few || !one_part ? 8 : 12};
    if (a->N <= 2048 && a->K <= 1024) *p = {p->tokens, 4, 4};
    else if (a->N <= 2048) *p = {p->tokens, !few ? 5 : a->K <= 8192 ? 8 : 6, few ? 8 : one_part ? 10 : 6};
    else if (few ? a->N <= 4096 : !one_part && a->M <= 48 && a->N <= 2304) p->split = 2;
    else if (a->N > 32768) *p = {few ? 16 : a->M <= 32 ? 32 : 64, 1, 16};
    else if (!few && a->N > 4096) return false;
    while (p->split > 1 && p->split * SLICE > a->K) p->split--;
    while (complete(a, *p, 132, &c, &grid) > MEMORY) {
        if (p->depth > STAGES_LEAST) p->depth /= 2;
        else if (p->tokens > 16) p->tokens /= 2;
        else if (p->split < SPLIT_MOST) p->split++;
        else return false;
    }
    return true;
}

} // namespace

int64_t tfi_few_wgmma_parts(const tfi_few_args *a, int multiprocessors)
{
    plan p;
    wgmma_call c;
    dim3 grid;

    if (a->norm.gain || a->residual || a->gated || a->activation != TFI_ACT_NONE || a->out != TFI_F32 || !choose(a, &p) ||
        p.split > 1)
        return 0;
    (void)complete(a, p, multiprocessors, &c, &grid);
    return grid.y * (GROUP / p.tokens);
}

bool tfi_few_wgmma_fits(const tfi_few_args *a, int capability)
{
#if defined(TFI_SM_90A)
    plan p;
    return capability == 90 && a->encode && (a->type == TFI_BF16 || a->type == TFI_F16) && a->out <= TFI_F16 && !a->norm.gain &&
           !a->from && a->M <= TFI_FEW_ROWS && a->K % 8 == 0 && a->K > 0 && ((uintptr_t)a->x | (uintptr_t)a->w) % 16 == 0 &&
           choose(a, &p);
#else
    (void)a, (void)capability;
    return false;
#endif
}

tf_status tfi_cuda_few_wgmma(const tfi_cuda_launch *l, const tfi_few_args *a, tfi_rows rows)
{
    plan p = {};
    (void)choose(a, &p);
    return a->type == TFI_BF16 ? run_plan<true>(l, a, rows, p) : run_plan<false>(l, a, rows, p);
}
