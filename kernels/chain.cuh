/* What the links of a chain share: the call, the ring that weights and stored keys come through, and the words that rows go from
 * link to link in. */
#ifndef TFI_KERNELS_CHAIN_CUH
#define TFI_KERNELS_CHAIN_CUH

#include "hopper.cuh"
#include "kv.cuh"
#include "reduce.cuh"

/* Warps that compute, and those that fill the ring, every fourth stage each: a copy takes a warp some 60 cycles to ask for. */
enum { CONSUMERS = 8, CONSUMING = CONSUMERS * WARP, PRODUCERS = 4, THREADS = CONSUMING + PRODUCERS * WARP };

/* A tile is 8 rows of w. Of each, a part of up to 1024 columns is in a stage of the ring, where neighbours begin in different
 * banks. Chunk c of 32 columns of w and x is warp c % 8's. */
enum { TILE = 8, CHUNK = 64 /* bytes */, PART = 2048, ROW_STRIDE = PART + CHUNK, STAGE = TILE * ROW_STRIDE, DEPTH_MAX = 16 };

/* Tiles whose sums, a row of 8 for each warp and row of x, meet at one barrier; and floats that may be between two barriers. */
enum { BATCH = 4, TILE_SUMS = CONSUMERS * TFI_CHAIN_ROWS * TILE + TILE, MEETING = BATCH * TILE_SUMS };

/* Columns of a row that is normed. */
enum { NORM_MAX = CONSUMING * 8 };

/* A link and what follows from it on the host. */
struct chain_link {
    tfi_link is;
    int16_t each, more; /* tiles or items of a block; of how many blocks, from `first` on, one more */
    int16_t blocks;     /* of the store in a stage */
};

struct chain_call {
    const tfi_cuda_live *live;
    uint64_t *exchange;
    kv_call own, source; /* of layer 0 */
    int count, number, M, depth, z_stride;
    int z_at, ring_at; /* in shared memory */
    chain_link links[TFI_CHAIN_LINKS];
};
static_assert(sizeof(chain_call) <= 32764, "it is a kernel's parameter");

/* What is where it is in shared memory: barriers of stages that are full and of those that are empty; statistics; sums. */
enum {
    FULL_AT = 0,
    EMPTY_AT = FULL_AT + DEPTH_MAX * 8,
    STATISTICS_AT = EMPTY_AT + DEPTH_MAX * 8,
    SUMS_AT = STATISTICS_AT + CONSUMERS * TFI_CHAIN_ROWS * 8,
    FREE_AT = SUMS_AT + 2 * MEETING * 4 /* the links */
};

/* What a thread knows in all links. */
struct chain_thread {
    const chain_call &c;
    char *shared;
    uint32_t base; /* its address */
    uint32_t tag;  /* of the run's link 0 */
    int32_t live[TFI_ROWS_COUNT];

    __device__ int rows(const tfi_link &link) const
    {
        const int n = link.rows == TFI_ROWS_TOKENS      ? live[TFI_ROWS_TOKENS]
                      : link.rows == TFI_ROWS_SEQUENCES ? live[TFI_ROWS_SEQUENCES]
                                                        : live[TFI_ROWS_SELECTED];
        return min(n, c.M);
    }
};

/* The block's tiles of a link are first, first + gridDim.x, ..., so many. */
struct chain_share {
    int first, count;
};

__device__ inline chain_share share_of(const chain_link &l)
{
    const int ahead = (int)blockIdx.x - l.is.first, first = ahead < 0 ? ahead + (int)gridDim.x : ahead;
    return {first, l.each + (first < l.more)};
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

/* The producers': all walk over all stages. */
struct chain_supply : chain_ring {
    int turn; /* whose stage it is */

    __device__ chain_supply(const chain_thread &t) : chain_ring(t), turn(CONSUMERS)
    {
    }

    __device__ bool is_mine() const
    {
        return turn == (int)threadIdx.x / WARP;
    }

    __device__ void leave()
    {
        if (++turn == CONSUMERS + PRODUCERS) turn = CONSUMERS;
        next();
    }

    /* When the stage is empty, so many bytes are going to come. */
    __device__ void expect(int bytes) const
    {
        barrier_wait(empty(), phase ^ 1);
        if (threadIdx.x % WARP == 0) barrier_expect(full, bytes);
        __syncwarp();
    }
};

/* Shared memory by address: the compiler would make the address anew each time. */
__device__ inline uint4 shared_load4(uint32_t at)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
    return v;
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

/* All warps but the producer. */
__device__ inline void meet_consumers()
{
    asm volatile("bar.sync 1, %0;" ::"n"((int)CONSUMING) : "memory");
}

/* ---- words ---- */

/* Of a row: an even number, so that two can be had at once from any even one on. */
__host__ __device__ inline int row_words(int columns, int dtype)
{
    return ((dtype == TFI_F32 ? columns : (columns + 1) / 2) + 1) / 2 * 2;
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

/* Rows to be read. */
struct chain_source {
    const uint64_t *words; /* NULL: they are in memory */
    const char *memory;
    uint32_t tag;

    __device__ chain_source(const chain_thread &t, const tfi_link_rows &r)
        : words(r.words < 0 ? NULL : t.c.exchange + r.words), memory((const char *)r.memory), tag(t.tag + r.link)
    {
    }
};

/* Elements at[i] to at[i] + 7 of rows of type X whose columns are a multiple of 8, for each of N; none where at[i] < 0. All are
 * asked for before the first is waited for. */
template <tfi_dtype X, int N>
__device__ __forceinline__ void take_eights(const chain_source &s, int (&at)[N], raw_elements<8> (&out)[N])
{
    constexpr int WORDS = X == TFI_F32 ? 8 : 4, PER_WORD = 8 / WORDS;

    if (!s.words) {
#pragma unroll
        for (int i = 0; i < N; i++)
            if (at[i] >= 0) out[i] = load_raw<8>(s.memory, X, at[i]);
        return;
    }
    for (bool late = true; late;) {
        uint64_t w[N][WORDS] = {};
        late = false;
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (at[i] < 0) continue;
#pragma unroll
            for (int k = 0; k < WORDS; k += 2) load_words(s.words + at[i] / PER_WORD + k, w[i][k], w[i][k + 1]);
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (at[i] < 0) continue;
            bool some = false;
#pragma unroll
            for (int k = 0; k < WORDS; k++) some |= is_late(w[i][k], s.tag);
            late |= some;
            if (some) continue;
            at[i] = -1;
            out[i].low = make_uint4((uint32_t)w[i][0], (uint32_t)w[i][1], (uint32_t)w[i][2], (uint32_t)w[i][3]);
            if (X == TFI_F32)
                out[i].high = make_uint4((uint32_t)w[i][WORDS - 4], (uint32_t)w[i][WORDS - 3], (uint32_t)w[i][WORDS - 2],
                                         (uint32_t)w[i][WORDS - 1]);
        }
    }
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

/* Two neighbours of a row of y's type, the first in an even column. */
struct chain_pair {
    uint64_t words[2]; /* of 16 bits: only the first */
};

__device__ inline int pair_at(int m, int n, int columns, bool wide)
{
    return wide ? m * ((columns + 1) / 2 * 2) + n : m * ((columns + 3) / 4 * 2) + n / 2;
}

/* As they are now: words may be late. */
__device__ inline chain_pair load_pair(const uint64_t *at, bool wide)
{
    chain_pair p = {};
    if (wide) load_words(at, p.words[0], p.words[1]);
    else p.words[0] = load_word(at);
    return p;
}

template <tfi_dtype T>
__device__ inline float2 wait_for_pair(chain_pair p, const uint64_t *at, uint32_t tag, bool wide)
{
    while (is_late(p.words[0], tag) || (wide && is_late(p.words[1], tag))) {
        p = load_pair(at, wide);
    }
    const uint32_t a = (uint32_t)p.words[0], b = (uint32_t)p.words[1];
    if (wide) return make_float2(__uint_as_float(a), __uint_as_float(b));
    return make_float2(half_to_float(a & 0xffff, T), half_to_float(a >> 16, T));
}

/* Where two neighbours of y go: to whoever waits for them, and to memory. */
struct chain_target {
    uint64_t *words; /* NULL: none */
    char *memory;    /* NULL: none */
    uint32_t tag;
    bool wide, two; /* fp32; the second is a column */

    template <tfi_dtype T>
    __device__ void put(float2 v) const
    {
        const uint32_t bits = wide ? __float_as_uint(v.x) : float_to_halves(v.x, v.y, T);

        if (words && wide) store_words(words, word_of(tag, bits), word_of(tag, __float_as_uint(v.y)));
        if (words && !wide) store_word(words, word_of(tag, bits));
        if (!memory) return;
        const float a[1] = {v.x}, b[1] = {v.y};
        store(memory, wide ? TFI_F32 : T, 0, a);
        if (two) store(memory, wide ? TFI_F32 : T, 1, b);
    }
};

__device__ inline chain_target target_of(const chain_thread &t, const tfi_link_rows &y, int m, int n, int columns)
{
    const bool wide = y.dtype == TFI_F32;
    chain_target to = {NULL, NULL, t.tag + y.link, wide, n + 1 < columns};
    if (y.words >= 0) to.words = t.c.exchange + y.words + pair_at(m, n, columns, wide);
    if (y.memory) to.memory = (char *)y.memory + ((int64_t)m * columns + n) * (wide ? 4 : 2);
    return to;
}

#endif
