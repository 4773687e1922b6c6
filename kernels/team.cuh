/* Blocks that share a row of logits. From 9.0 on a team is a cluster, whose members write into one another's shared memory;
 * before, it is one block.
 *
 * Members learn of one another by gather(): every warp of the team gives two numbers and gets those of all. They are sent
 * with stores that count themselves at a barrier of the receiver: 0.3 us on H200, where a barrier over the cluster waits for
 * all memory. Two gathers use the two halves of the slots in turn: who sends to a half again has heard that all have left
 * it. */
#ifndef TFI_KERNELS_TEAM_CUH
#define TFI_KERNELS_TEAM_CUH

#include "draw.cuh"

enum { TEAM_MAX = 8, TEAM_THREADS = 512, TEAM_WARPS = TEAM_MAX * TEAM_THREADS / WARP };

struct team_slots {
    ulonglong2 halves[2][TEAM_WARPS];
    uint64_t arrivals[3]; /* barriers of the halves, and one for exchanges */
};

struct team {
    team_slots *slots; /* shared */
    unsigned member, size, turn, exchanges;
};

__device__ inline void team_sync()
{
#if __CUDA_ARCH__ >= 900
    __cluster_barrier_arrive();
    __cluster_barrier_wait();
#else
    __syncthreads();
#endif
}

/* The same variable of shared memory in another member. */
template <typename T>
__device__ inline T *of_member(T *own, unsigned member)
{
#if __CUDA_ARCH__ >= 900
    return (T *)__cluster_map_shared_rank(own, member);
#else
    return own;
#endif
}

/* What only members of a cluster do to one another. */

__device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

__device__ inline void init_arrivals(uint64_t *barrier)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)));
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/* The phase ends when as many bytes have come. By one thread. */
__device__ inline void expect(uint64_t *barrier, unsigned bytes)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
#endif
}

/* To the same places in another member. */
__device__ inline void send(unsigned member, void *to, uint64_t *barrier, uint64_t a, uint64_t b)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n"
                 ".reg .b32 there, barrier;\n"
                 "mapa.shared::cluster.u32 there, %0, %2;\n"
                 "mapa.shared::cluster.u32 barrier, %1, %2;\n"
                 "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b64 [there], {%3, %4}, [barrier];\n"
                 "}" ::"r"(shared_address(to)),
                 "r"(shared_address(barrier)), "r"(member), "l"(a), "l"(b)
                 : "memory");
#endif
}

__device__ inline void wait_for(uint64_t *barrier, unsigned parity)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "again_%=:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
                 "@!over bra again_%=;\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
#endif
}

/* All members are there when this returns. */
__device__ inline team join(team_slots *slots)
{
    team t = {slots, 0, 1, 0, 0};
#if __CUDA_ARCH__ >= 900
    t.member = __clusterRelativeBlockRank();
    t.size = __clusterSizeInBlocks();
    if (threadIdx.x < 3) init_arrivals(&slots->arrivals[threadIdx.x]);
    __cluster_barrier_arrive_relaxed();
    __cluster_barrier_wait();
#endif
    return t;
}

/* Which of the grid's teams this is. */
__device__ inline int64_t team_index(const team &t)
{
    return blockIdx.x / t.size;
}

__device__ inline unsigned team_warps(const team &t)
{
    return t.size * (blockDim.x / WARP);
}

/* This warp's number, members' warps one behind the other. */
__device__ inline unsigned team_warp(const team &t)
{
    return t.member * (blockDim.x / WARP) + threadIdx.x / WARP;
}

/* What each warp of the team gave, by its number; until the gather after the next. Numbers are the same over a warp. */
__device__ inline const ulonglong2 *gather(team &t, uint64_t a, uint64_t b)
{
    ulonglong2 *half = t.slots->halves[t.turn % 2];
    const unsigned lane = threadIdx.x % WARP;

    if (t.size == 1) {
        if (lane == 0) half[team_warp(t)] = make_ulonglong2(a, b);
        __syncthreads();
    } else {
        uint64_t *barrier = &t.slots->arrivals[t.turn % 2];
        if (threadIdx.x == 0) expect(barrier, team_warps(t) * (unsigned)sizeof *half);
        if (lane < t.size) send(lane, half + team_warp(t), barrier, a, b);
        wait_for(barrier, t.turn / 2 % 2);
    }
    t.turn++;
    return half;
}

__device__ inline uint64_t team_add(team &t, uint64_t v)
{
    const ulonglong2 *all = gather(t, warp_add(v), 0);
    uint64_t sum = 0;
    for (unsigned w = threadIdx.x % WARP; w < team_warps(t); w += WARP) sum += all[w].x;
    return warp_add(sum);
}

__device__ inline uint64_t team_most(team &t, uint64_t v)
{
    const ulonglong2 *all = gather(t, warp_most(v), 0);
    uint64_t most = 0;
    for (unsigned w = threadIdx.x % WARP; w < team_warps(t); w += WARP) most = max(most, (uint64_t)all[w].x);
    return warp_most(most);
}

/* A part of n, which is less than 2^31. */
struct part {
    int64_t begin, count;
};

__device__ inline part part_of(int64_t n, unsigned index, unsigned parts)
{
    const uint32_t each = ((uint32_t)n + parts - 1) / parts, begin = min(index * each, (uint32_t)n);
    return {begin, min(each, (uint32_t)n - begin)};
}

__device__ inline part own_part(const team &t, int64_t n)
{
    return part_of(n, t.member, t.size);
}

/* ---- rows of which each member reads its part ---- */

/* What a row's logits have in common. The best is that of lowest index; a row without numbers above -infinity has none. */
struct row_facts {
    bool invalid;
    uint64_t best; /* low_first() */
};

/* Of one thread's numbers. */
__device__ inline row_facts own_facts(const float *x, part p)
{
    row_facts f = {false, 0};
    float best = -CUDART_INF_F;
    uint32_t at = ~(uint32_t)0;

    for_row(x + p.begin, p.count, [&](uint32_t i, float v) {
        f.invalid |= is_invalid(v);
        if (v > best || at == ~(uint32_t)0) {
            best = v;
            at = (uint32_t)p.begin + i;
        }
    });
    if (at != ~(uint32_t)0) f.best = low_first(best, at);
    return f;
}

/* An invalid row has no best. */
__device__ inline row_facts team_facts(team &t, row_facts own)
{
    const uint64_t none = ~(uint64_t)0, best = team_most(t, own.invalid ? none : own.best);
    return {best == none, best};
}

__device__ inline uint64_t sum_exp(team &t, const float *x, part p, float max)
{
    uint64_t sum = 0;

    for_row<2>(x + p.begin, p.count, [&](uint32_t, float v) { sum += weight_of(v, max); });
    return team_add(t, sum);
}

/* The logarithm of the sum of exp(x[i]); NaN where the row is invalid. */
__device__ inline double log_sum_exp(team &t, const float *x, part p)
{
    const row_facts f = team_facts(t, own_facts(x, p));
    const float max = score_of(f.best);
    if (f.invalid) return CUDART_NAN;
    return (double)max + log(number_of_sum(sum_exp(t, x, p, max)));
}

/* ---- host ---- */

/* Members of a team where there are `rows` of them: fewer where all of them would not be on the device at once, `room` blocks
 * to a multiprocessor. */
inline unsigned team_size(const tfi_cuda_launch *l, int64_t rows, int room)
{
    unsigned size = l->capability >= 90 ? TEAM_MAX : 1;
    while (size > 1 && rows * size > room * (int64_t)l->multiprocessors) size /= 2;
    return size;
}

/* `blocks` for each of `rows`: all of them are a team, or each is one. */
template <typename... Parameters, typename... Arguments>
tf_status start_teams(const tfi_cuda_launch *l, const char *op, void (*kernel)(Parameters...), int64_t rows, unsigned blocks,
                      size_t shared, Arguments... arguments)
{
    return start_clusters(l, op, l->capability >= 90 ? blocks : 1, kernel, (unsigned)rows * blocks, TEAM_THREADS, shared,
                          arguments...);
}

#endif
