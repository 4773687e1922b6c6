/* What the roles of a chain's block share: the call, the ring that weights and stored keys come through, and the words that rows go
 * from link to link in. */
#ifndef TFI_KERNELS_CHAIN_CUH
#define TFI_KERNELS_CHAIN_CUH

#include "hopper.cuh"
#include "kv.cuh"
#include "reduce.cuh"

/* Warps by role: those that multiply and attend, one that fills the ring, one that makes y of sums. Each role's code is small and goes
 * round: a link executes once what it executes, and instructions that are not in the cache take longer than the products. */
enum {
    CONSUMERS = 8,
    CONSUMING = CONSUMERS * WARP,
    PRODUCER = CONSUMERS,
    FINISHER,
    THREADS = 12 * WARP /* whole groups of four warps, which share out registers */
};

/* A tile is 8 rows of w (gated: 4, and the 4 of the right half). Of each, a part of up to 1024 columns is in a stage of the ring,
 * where neighbours begin in different banks. Chunk c of 32 columns of w and x is warp c % 8's. */
enum {
    TILE = 8,
    CHUNK = 64 /* bytes */,
    PART = 2048,
    PART_CHUNKS = PART / CHUNK,
    MINE = PART_CHUNKS / CONSUMERS,
    ROW_STRIDE = PART + CHUNK,
    STAGE = TILE * ROW_STRIDE,
    DEPTH_MAX = 16
};

/* Sums of up to BATCH tiles go from the consumers to the finisher together, in one of two places. Of each tile a warp has up to
 * three rows of 8: of w and x, and with a layer's norm of w and the gains, and of w and the shifts. */
enum { BATCH = 8, SUM_ROWS = 3, TILE_SUMS = CONSUMERS * SUM_ROWS * TILE + TILE, PLACE = BATCH * TILE_SUMS * 4, PLACES = 2 };

/* Columns of a row that is normed. */
enum { NORM_MAX = CONSUMING * 8 };

/* A link and what follows from it on the host. */
struct chain_link {
    tfi_link is;
    int16_t each, more; /* pairs of columns or heads of a block; of how many blocks, from `first` on, one more */
    int16_t blocks;     /* of the store in a stage */
    bool residual_wide, y_wide;
};

struct chain_call {
    const tfi_cuda_live *live;
    uint64_t *exchange;
    kv_call own, source; /* of layer 0 */
    int count, depth, given_columns;
    int z_at, z_stride, ring_at; /* in shared memory: x, behind shifts and gains */
    bool given_wide;
    chain_link links[TFI_CHAIN_LINKS];
};
static_assert(sizeof(chain_call) <= 32764, "it is a kernel's parameter");

/* What is where it is in shared memory. Barriers: stages, places of sums and of statistics that are full, and those that are
 * empty. */
enum {
    FULL_AT = 0,
    EMPTY_AT = FULL_AT + DEPTH_MAX * 8,
    SUMS_FULL_AT = EMPTY_AT + DEPTH_MAX * 8,
    SUMS_EMPTY_AT = SUMS_FULL_AT + PLACES * 8,
    STATISTICS_FULL_AT = SUMS_EMPTY_AT + PLACES * 8,
    STATISTICS_EMPTY_AT = STATISTICS_FULL_AT + PLACES * 8,
    STATISTICS_AT = STATISTICS_EMPTY_AT + PLACES * 8,
    SUMS_AT = STATISTICS_AT + PLACES * CONSUMING * 8,
    FREE_AT = SUMS_AT + PLACES * PLACE /* the links */
};

/* What a thread knows in all links. */
struct chain_thread {
    const chain_call &c;
    char *shared;
    uint32_t base; /* its address */
    uint32_t tag;  /* of the run's link 0 */
    int32_t live[TFI_ROWS_COUNT];

    __device__ bool lives(const tfi_link &link) const
    {
        return (link.rows == TFI_ROWS_TOKENS      ? live[TFI_ROWS_TOKENS]
                : link.rows == TFI_ROWS_SEQUENCES ? live[TFI_ROWS_SEQUENCES]
                                                  : live[TFI_ROWS_SELECTED]) > 0;
    }
};

/* What the block has of a link: pairs of columns of y, or heads. */
struct chain_share {
    int begin, count;
};

__device__ inline chain_share share_of(const chain_link &l)
{
    const int ahead = (int)blockIdx.x - l.is.first, number = ahead < 0 ? ahead + (int)gridDim.x : ahead;
    return {number * l.each + min(number, (int)l.more), l.each + (number < l.more)};
}

/* ---- the ring ---- */

/* Where the producer, or a consuming warp, is in it. */
struct chain_ring {
    uint32_t begin, at, full; /* first stage and this; the barrier that says it is full, EMPTY_AT - FULL_AT before the other */
    int stage, phase, depth;

    __device__ chain_ring(const chain_thread &t)
        : begin(t.base + t.c.ring_at), at(begin), full(t.base + FULL_AT), stage(0), phase(0), depth(t.c.depth)
    {
    }

    __device__ uint32_t empty() const
    {
        return full + (EMPTY_AT - FULL_AT);
    }

    __device__ void next()
    {
        full += 8;
        at += STAGE;
        if (++stage < depth) return;
        full -= depth * 8;
        at = begin;
        stage = 0;
        phase ^= 1;
    }

    /* The producer: when the stage is empty, so many bytes are going to come. Consumers have asked for what they read of it, but
     * copies do not queue behind loads that are on their way: without the fence some brought the bytes of the next stage. */
    __device__ void expect(int bytes) const
    {
        barrier_wait(empty(), phase ^ 1);
        before_copies();
        if (threadIdx.x % WARP == 0) barrier_expect(full, bytes);
        __syncwarp();
    }

    /* Consumers: all warps take all stages one after the other. */
    __device__ void take() const
    {
        barrier_wait(full, phase);
    }

    __device__ void give_back()
    {
        __syncwarp();
        if (threadIdx.x % WARP == 0) barrier_arrive(empty());
        next();
    }
};

/* ---- places that are written, read and written again ---- */

struct chain_place {
    uint32_t full, empty; /* of place 0 */
    int turn;

    __device__ chain_place(uint32_t full_at, uint32_t empty_at) : full(full_at), empty(empty_at), turn(0)
    {
    }

    __device__ int number() const
    {
        return turn % PLACES;
    }

    __device__ void wait_for_room() const
    {
        barrier_wait(empty + number() * 8, ~(turn / PLACES) & 1);
    }

    __device__ void wait_for_all() const
    {
        barrier_wait(full + number() * 8, turn / PLACES & 1);
    }

    /* All lanes. */
    __device__ void give()
    {
        __syncwarp();
        if (threadIdx.x % WARP == 0) barrier_arrive(full + number() * 8);
        turn++;
    }

    __device__ void give_back()
    {
        __syncwarp();
        if (threadIdx.x % WARP == 0) barrier_arrive(empty + number() * 8);
        turn++;
    }
};

struct chain_places {
    chain_place sums, statistics; /* statistics: each consumer's share of x's sum and squares */

    __device__ chain_places(const chain_thread &t)
        : sums(t.base + SUMS_FULL_AT, t.base + SUMS_EMPTY_AT),
          statistics(t.base + STATISTICS_FULL_AT, t.base + STATISTICS_EMPTY_AT)
    {
    }
};

/* Bytes from the shifts to the gains, and to x: neighbours begin in different banks. Where a chunk is does not depend on the link:
 * so it is always the same warp's. */
__host__ __device__ inline int z_stride_of(int K)
{
    return (K * 2 + PART - 1) / PART * PART + CHUNK;
}

/* Shared memory by address: the compiler would make the address anew each time. */
__device__ inline void shared_load4(uint4 &v, uint32_t at)
{
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
}

__device__ inline float2 shared_load2(uint32_t at)
{
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(at));
    return v;
}

__device__ inline void shared_store4(uint32_t at, const uint4 &v)
{
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}

__device__ inline void shared_store2(uint32_t at, float2 v)
{
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(v.x), "f"(v.y) : "memory");
}

__device__ inline void shared_store_words(uint32_t at, uint2 v)
{
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(at), "r"(v.x), "r"(v.y) : "memory");
}

__device__ inline void shared_store1(uint32_t at, uint32_t v)
{
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
}

/* Links are read from shared memory: the constant cache does not hold them all, and what it does not hold takes 700 cycles. For
 * the same reason they come there as memory, not as a parameter that is indexed. */
__device__ inline void copy_links(const chain_thread &t)
{
    const uint2 *from = (const uint2 *)t.c.links;
    asm volatile("" : "+l"(from));
    for (int i = threadIdx.x; i < t.c.count * (int)(sizeof(chain_link) / 8); i += THREADS)
        *(uint2 *)(t.shared + FREE_AT + i * 8) = from[i];
}

__device__ inline const chain_link &link_of(const chain_thread &t, int i)
{
    return ((const chain_link *)(t.shared + FREE_AT))[i];
}

template <tfi_dtype T>
__device__ inline void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
    if constexpr (T == TFI_BF16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* ---- words ---- */

/* A row's words are wide, an fp32 element each, or narrow, two elements of 16 bits. What residuals are added to, which is normed
 * next, is wide, and all that is F32. */
inline bool is_wide(const tfi_link *l)
{
    return l->y.dtype == TFI_F32 || l->residual.words >= 0 || l->residual.memory;
}

__device__ inline void load_words(const uint64_t *p, uint64_t &a, uint64_t &b)
{
    asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];" : "=l"(a), "=l"(b) : "l"(p));
}

__device__ inline uint64_t load_word(const uint64_t *p)
{
    uint64_t v;
    asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(v) : "l"(p));
    return v;
}

__device__ inline uint64_t word_of(uint32_t tag, uint32_t bits)
{
    return (uint64_t)tag << 32 | bits;
}

__device__ inline bool is_late(uint64_t word, uint32_t tag)
{
    return (uint32_t)(word >> 32) != tag;
}

__device__ inline void store_words(uint64_t *p, uint64_t a, uint64_t b)
{
    asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(p), "l"(a), "l"(b));
}

__device__ inline void store_word(uint64_t *p, uint64_t v)
{
    asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(p), "l"(v));
}

/* Pieces of 16 bytes, two words each: for each k of `wanted` the one at p + k * stride. All of them are asked for before the
 * first is waited for. */
template <int N>
__device__ __forceinline__ void take_pieces(const uint64_t *p, int stride, uint32_t wanted, uint32_t tag, uint2 (&out)[N])
{
    while (wanted) {
        uint64_t w[N][2] = {};
#pragma unroll
        for (int k = 0; k < N; k++)
            if (wanted >> k & 1) load_words(p + k * stride, w[k][0], w[k][1]);
#pragma unroll
        for (int k = 0; k < N; k++) {
            if (!(wanted >> k & 1) || is_late(w[k][0], tag) || is_late(w[k][1], tag)) continue;
            out[k] = make_uint2((uint32_t)w[k][0], (uint32_t)w[k][1]);
            wanted &= ~(1u << k);
        }
    }
}

/* Where two neighbours of y go: to whoever waits for them, and to memory. */
struct chain_target {
    uint64_t *words; /* NULL: none */
    char *memory;    /* NULL: none */
    uint32_t tag;
    bool wide, full, two; /* words; fp32 in memory; the second is a column */

    template <tfi_dtype T>
    __device__ void put(float2 v) const
    {
        uint32_t halves = 0;

        if (!full) {
            halves = float_to_halves(v.x, v.y, T);
            v = make_float2(half_to_float(halves & 0xffff, T), half_to_float(halves >> 16, T));
        }
        if (words && wide) store_words(words, word_of(tag, __float_as_uint(v.x)), word_of(tag, __float_as_uint(v.y)));
        if (words && !wide) store_word(words, word_of(tag, halves));
        if (!memory) return;
        const float a[1] = {v.x}, b[1] = {v.y};
        store(memory, full ? TFI_F32 : T, 0, a);
        if (two) store(memory, full ? TFI_F32 : T, 1, b);
    }
};

__device__ inline chain_target target_of(const chain_thread &t, const chain_link &l, int n, int columns)
{
    const tfi_link_rows &y = l.is.y;
    const bool full = y.dtype == TFI_F32;
    chain_target to = {NULL, NULL, t.tag + y.link, l.y_wide, full, n + 1 < columns};
    if (y.words >= 0) to.words = t.c.exchange + y.words + (l.y_wide ? n : n / 2);
    if (y.memory) to.memory = (char *)y.memory + (int64_t)n * (full ? 4 : 2);
    return to;
}

#endif
