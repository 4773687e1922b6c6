/* What the links of a chain share: the call, the ring that weights and stored keys come through, and the words that rows go from
 * link to link in. */
#ifndef TFI_KERNELS_CHAIN_CUH
#define TFI_KERNELS_CHAIN_CUH

#include "hopper.cuh"
#include "kv.cuh"
#include "reduce.cuh"

/* Warps that compute, and one more that fills the ring. */
enum { CONSUMERS = 8, CONSUMING = CONSUMERS * WARP, THREADS = CONSUMING + WARP };

/* A tile is 8 rows of w. Of a row, a part of up to 1024 columns is in a stage of the ring; chunk c of 32 columns is for warp
 * c % 8, in x too. Rows lie so that neighbours are in different banks. */
enum { TILE = 8, CHUNK = 64 /* bytes */, PART = 2048, ROW_STRIDE = PART + CHUNK, STAGE = TILE * ROW_STRIDE, DEPTH_MAX = 16 };

/* Tiles whose sums, a row of 8 for each warp and row of x, meet at one barrier; and floats that may be between two barriers. */
enum { BATCH = 4, TILE_SUMS = CONSUMERS * TFI_CHAIN_ROWS * TILE + TILE, MEETING = BATCH * TILE_SUMS };

/* A link and what follows from it on the host. */
struct chain_link {
    tfi_link is;
    int16_t each, more; /* tiles or items of a block; of how many blocks, from `first` on, one more */
    int16_t parts;      /* of a row of w */
    int16_t part;       /* bytes; of an attention, blocks of the store in a stage */
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
    FREE_AT = SUMS_AT + 2 * MEETING * 4
};

/* What a thread knows in all links. */
struct chain_thread {
    const chain_call &c;
    char *shared;
    uint32_t tag; /* of the run's link 0 */
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
    uint32_t full, empty; /* barriers of the stage */
    int stage, phase, depth;

    __device__ chain_ring(const chain_call &c, char *shared)
        : full(shared_address(shared + FULL_AT)), empty(shared_address(shared + EMPTY_AT)), stage(0), phase(0), depth(c.depth)
    {
    }

    __device__ void next()
    {
        full += 8;
        empty += 8;
        if (++stage < depth) return;
        full -= depth * 8;
        empty -= depth * 8;
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
        if (threadIdx.x % WARP == 0) barrier_arrive(empty);
        next();
    }

    /* The producer: when the stage is empty, so many bytes are going to come. */
    __device__ void expect(int bytes) const
    {
        barrier_wait(empty, phase ^ 1);
        if (threadIdx.x % WARP == 0) barrier_expect(full, bytes);
        __syncwarp();
    }
};

__device__ inline void copy_bytes(uint32_t to, const void *from, int bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(barrier)
                 : "memory");
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

/* Stops a test that would hang. */
__device__ inline void count_poll(int &polls)
{
#ifdef TFI_CHAIN_PATIENCE
    if (++polls > TFI_CHAIN_PATIENCE) __trap();
#endif
}

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
    int polls = 0;
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
        count_poll(polls);
    }
}

/* Two neighbours of a row of y's type, the first in an even column. */
struct chain_pair {
    uint64_t words[2]; /* of 16 bits: only the first */
};

__device__ inline int pair_at(int m, int n, int columns, int dtype)
{
    return m * row_words(columns, dtype) + (dtype == TFI_F32 ? n : n / 2);
}

/* As they are now: words may be late. */
__device__ inline chain_pair load_pair(const chain_source &s, int m, int n, int columns, tfi_dtype dtype)
{
    chain_pair p = {};

    if (s.words) {
        const uint64_t *at = s.words + pair_at(m, n, columns, dtype);
        if (dtype == TFI_F32) load_words(at, p.words[0], p.words[1]);
        else p.words[0] = load_word(at);
        return p;
    }
    const int64_t i = (int64_t)m * columns + n;
    const uint32_t a = load_raw<1>(s.memory, dtype, i).bits;
    const uint32_t b = n + 1 < columns ? load_raw<1>(s.memory, dtype, i + 1).bits : 0;
    p.words[0] = word_of(s.tag, dtype == TFI_F32 ? a : b << 16 | a);
    p.words[1] = word_of(s.tag, b);
    return p;
}

__device__ inline float2 wait_for_pair(const chain_source &s, chain_pair p, int m, int n, int columns, tfi_dtype dtype)
{
    int polls = 0;
    while (is_late(p.words[0], s.tag) || (dtype == TFI_F32 && is_late(p.words[1], s.tag))) {
        p = load_pair(s, m, n, columns, dtype);
        count_poll(polls);
    }
    const uint32_t a = (uint32_t)p.words[0], b = (uint32_t)p.words[1];
    if (dtype == TFI_F32) return make_float2(__uint_as_float(a), __uint_as_float(b));
    return make_float2(half_to_float(a & 0xffff, dtype), half_to_float(a >> 16, dtype));
}

/* To whoever waits for it, and to memory. */
__device__ inline void store_pair(const chain_thread &t, const tfi_link_rows &y, int m, int n, int columns, float2 v)
{
    const tfi_dtype dtype = (tfi_dtype)y.dtype;
    const uint32_t tag = t.tag + y.link;
    const bool two = n + 1 < columns;

    if (y.words >= 0) {
        uint64_t *to = t.c.exchange + y.words + pair_at(m, n, columns, dtype);
        if (dtype == TFI_F32) store_words(to, word_of(tag, __float_as_uint(v.x)), word_of(tag, __float_as_uint(v.y)));
        else store_word(to, word_of(tag, float_to_halves(v.x, v.y, dtype)));
    }
    if (!y.memory) return;
    const int64_t i = (int64_t)m * columns + n;
    const float a[1] = {v.x}, b[1] = {v.y};
    store(y.memory, dtype, i, a);
    if (two) store(y.memory, dtype, i + 1, b);
}

#endif
