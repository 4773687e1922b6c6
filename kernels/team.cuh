/* Blocks that share a row of logits. From 9.0 on a team is a cluster: members write into one another's shared memory, and a
 * barrier over all of them costs about what a read from L2 does. Before, a team is one block.
 *
 * Members learn of one another by gather(): every warp of the team gives a number and gets those of all. Two gathers use the
 * two halves of `slots` in turn, so one barrier is enough for each. */
#ifndef TFI_KERNELS_TEAM_CUH
#define TFI_KERNELS_TEAM_CUH

#include "draw.cuh"

enum { TEAM_MAX = 8, TEAM_WARPS = 128, CLUSTER_THREADS = 512 };

struct team_slots {
    uint64_t halves[2][TEAM_WARPS];
};

struct team {
    team_slots *slots; /* shared */
    unsigned member, size, turn;
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

/* All members are there when this returns. */
__device__ inline team join(team_slots *slots)
{
    team t = {slots, 0, 1, 0};
#if __CUDA_ARCH__ >= 900
    t.member = __clusterRelativeBlockRank();
    t.size = __clusterSizeInBlocks();
#endif
    team_sync();
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

/* What each warp of the team gave, by its number; until the gather after the next. v is the same over a warp. */
__device__ inline const uint64_t *gather(team &t, uint64_t v)
{
    uint64_t *half = t.slots->halves[t.turn++ % 2];
    const unsigned lane = threadIdx.x % WARP;

    if (lane < t.size) *of_member(half + team_warp(t), lane) = v;
    team_sync();
    return half;
}

__device__ inline uint64_t team_add(team &t, uint64_t v)
{
    const uint64_t *all = gather(t, warp_add(v));
    uint64_t sum = 0;
    for (unsigned w = threadIdx.x % WARP; w < team_warps(t); w += WARP) sum += all[w];
    return warp_add(sum);
}

__device__ inline uint64_t team_most(team &t, uint64_t v)
{
    const uint64_t *all = gather(t, warp_most(v));
    uint64_t most = 0;
    for (unsigned w = threadIdx.x % WARP; w < team_warps(t); w += WARP) most = max(most, all[w]);
    return warp_most(most);
}

/* A member's part of n. */
struct part {
    int64_t begin, end;
};

__device__ inline part own_part(const team &t, int64_t n)
{
    const int64_t each = (n + t.size - 1) / t.size, begin = min(t.member * each, n);
    return {begin, min(begin + each, n)};
}

/* ---- host ---- */

/* Members of a team where there are `rows` of them: fewer where all of them would not be on the device at once. */
inline unsigned team_size(const tfi_cuda_launch *l, int64_t rows)
{
    unsigned size = l->capability >= 90 ? TEAM_MAX : 1;
    while (size > 1 && rows * size > 2 * (int64_t)l->multiprocessors) size /= 2;
    return size;
}

/* A team for each of `rows`. */
template <typename... Parameters, typename... Arguments>
tf_status start_teams(const tfi_cuda_launch *l, const char *op, void (*kernel)(Parameters...), int64_t rows,
                      Arguments... arguments)
{
    const unsigned size = team_size(l, rows);
    const unsigned threads = l->capability >= 90 ? (unsigned)CLUSTER_THREADS : (unsigned)DRAW_THREADS;
    return start_clusters(l, op, size, kernel, (unsigned)rows * size, threads, 0, arguments...);
}

#endif
