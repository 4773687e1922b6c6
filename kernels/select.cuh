/* The search for the best of many, over a team: nothing is sorted. Which keys are taken follows from the last one that is,
 * and a pass over all keys narrows its range to one of BINS bins: two or three passes do for floats as they come. */
#ifndef TFI_KERNELS_SELECT_CUH
#define TFI_KERNELS_SELECT_CUH

#include "team.cuh"

enum { BINS = 1024, BINS_LOG2 = 10, PIECES = 3, PIECE_BITS = 14, BINS_EACH = BINS / TEAM_THREADS };

/* How many, and how much weight, are to be taken, from the largest key down. */
struct quota {
    uint64_t count, sum;
};

__device__ inline bool is_met(quota q, uint64_t count, uint64_t sum)
{
    return count >= q.count && sum >= q.sum;
}

/* The bin in which the quota is met, and what is in it and in all before it. */
struct found_bin {
    uint64_t sum_before;
    uint32_t count_before, count;
    int bin; /* -1: it never is */
};

/* Shared memory of each member. A weight is summed in pieces: no sum of 2^18 of them has a carry, and adding 64 bits to shared
 * memory is a loop. The last member looks at the first BINS / size bins of all members, and so on: those are sent to it. */
struct alignas(16) bins {
    uint32_t own[1 + PIECES][BINS]; /* counts, then pieces */
    uint32_t all[1 + PIECES][BINS]; /* a slice of each member's, one behind the other */
};

__device__ inline void clear(bins *b, bool weighted)
{
    uint4 *own = (uint4 *)b->own;

    for (int i = threadIdx.x; i < (weighted ? 1 + PIECES : 1) * BINS / 4; i += blockDim.x) own[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
}

__device__ inline void count_in(bins *b, int bin, uint64_t weight)
{
    atomicAdd(&b->own[0][bin], 1u);
    if (weight == 0) return;
#pragma unroll
    for (int k = 0; k < PIECES; k++)
        atomicAdd(&b->own[1 + k][bin], (uint32_t)(weight >> (k * PIECE_BITS)) & ((1u << PIECE_BITS) - 1));
}

/* What all members have counted is in b->all when this returns. */
static __device__ __noinline__ void exchange(team &t, bins *b, bool weighted)
{
    const unsigned slice = BINS / t.size, arrays = weighted ? 1 + PIECES : 1;
    uint64_t *barrier = t.slots->arrivals + 2;

    __syncthreads();
    if (threadIdx.x == 0 && t.size > 1) expect(barrier, arrays * (unsigned)sizeof b->all[0]);
    for (unsigned i = threadIdx.x; i < arrays * BINS / 4; i += blockDim.x) {
        const unsigned array = i / (BINS / 4), bin = i % (BINS / 4) * 4;
        const ulonglong2 four = *(const ulonglong2 *)&b->own[array][bin];
        ulonglong2 *to = (ulonglong2 *)&b->all[array][t.member * slice + bin % slice];
        if (t.size > 1) send(t.size - 1 - bin / slice, to, barrier, four.x, four.y);
        else *to = four;
    }
    if (t.size > 1) wait_for(barrier, t.exchanges++ % 2);
    else __syncthreads();
}

struct total {
    uint64_t count, sum;
};

/* Of all members, for a bin of this one's slice. */
__device__ inline total total_of(const team &t, const bins *b, unsigned bin, bool weighted)
{
    total of = {0, 0};

#pragma unroll
    for (unsigned m = 0; m < TEAM_MAX; m++) {
        if (m >= t.size) break;
        const unsigned at = m * (BINS / t.size) + bin;
        of.count += b->all[0][at];
        for (int k = 0; weighted && k < PIECES; k++) of.sum += (uint64_t)b->all[1 + k][at] << (k * PIECE_BITS);
    }
    return of;
}

__device__ inline total team_sums(team &t, total own)
{
    const ulonglong2 *all = gather(t, warp_add(own.count), warp_add(own.sum));
    total sum = {0, 0};

    for (unsigned w = threadIdx.x % WARP; w < team_warps(t); w += WARP) {
        sum.count += all[w].x;
        sum.sum += all[w].y;
    }
    return {warp_add(sum.count), warp_add(sum.sum)};
}

/* Bins are taken from the last one down. */
static __device__ __noinline__ found_bin find_bin(team &t, const bins *b, quota q)
{
    const unsigned lane = threadIdx.x % WARP, slice = BINS / t.size, each = (slice + blockDim.x - 1) / blockDim.x;
    const unsigned first = threadIdx.x * each;
    total totals[BINS_EACH], before = {0, 0};

#pragma unroll
    for (unsigned k = 0; k < BINS_EACH; k++) {
        totals[k] = {0, 0};
        if (k < each && first + k < slice) totals[k] = total_of(t, b, slice - 1 - first - k, q.sum > 0);
        before.count += totals[k].count;
        before.sum += totals[k].sum;
    }
    const total own = before;
    for (unsigned i = 1; i < WARP; i *= 2) {
        const uint32_t count = __shfl_up_sync(0xffffffffu, (uint32_t)before.count, i);
        const uint64_t sum = __shfl_up_sync(0xffffffffu, before.sum, i);
        if (lane >= i) {
            before.count += count;
            before.sum += sum;
        }
    }
    const ulonglong2 *all =
        gather(t, __shfl_sync(0xffffffffu, before.count, WARP - 1), __shfl_sync(0xffffffffu, before.sum, WARP - 1));
    total others = {0, 0};
    for (unsigned w = lane; w < team_warp(t); w += WARP) {
        others.count += all[w].x;
        others.sum += all[w].y;
    }
    before.count += warp_add(others.count) - own.count;
    before.sum += warp_add(others.sum) - own.sum;
    found_bin f = {0, 0, 0, 0};
#pragma unroll
    for (unsigned k = 0; k < BINS_EACH; k++) {
        const total after = {before.count + totals[k].count, before.sum + totals[k].sum};
        if (!is_met(q, before.count, before.sum) && is_met(q, after.count, after.sum))
            f = {before.sum, (uint32_t)before.count, (uint32_t)totals[k].count, (int)(BINS - t.member * slice - first - k)};
        before = after;
    }
    /* One thread of the team, or none, has found it: sums over all tell everybody. */
    const uint64_t packed = (uint64_t)f.count_before << 40 | (uint64_t)f.count << 16 | (uint64_t)f.bin;
    const total told = team_sums(t, {packed, f.sum_before});
    return {told.sum, (uint32_t)(told.count >> 40), (uint32_t)(told.count >> 16) & 0xffffff, ((int)told.count & 0xffff) - 1};
}

/* For what has no weight. */
__device__ inline uint64_t weightless()
{
    return 0;
}

/* Takes keys from the largest down until the quota is met, and returns the last one taken, or what is between it and the next;
 * or `low` if all of them do not meet it. each(offer) calls offer(key, weigh) for all of this member's keys, the same in every
 * pass; those outside [low, high] do not count. */
template <typename Each>
__device__ uint64_t select_last(team &t, bins *b, uint64_t low, uint64_t high, quota q, Each each)
{
    const bool weighted = q.sum > 0;

    while (true) {
        const int bits = 64 - __clzll((long long)(high - low)), shift = bits > BINS_LOG2 ? bits - BINS_LOG2 : 0;
        __syncthreads();
        clear(b, weighted);
        each([&](uint64_t key, auto weigh) {
            if (key >= low && key <= high) count_in(b, (int)((key - low) >> shift), weighted ? weigh() : 0);
        });
        exchange(t, b, weighted);
        const found_bin f = find_bin(t, b, q);
        if (f.bin < 0) return low;
        low += (uint64_t)f.bin << shift;
        if (shift == 0 || f.count == 1) return low;
        high = min(high, low + ((uint64_t)1 << shift) - 1);
        q.count -= min(q.count, (uint64_t)f.count_before);
        q.sum -= min(q.sum, f.sum_before);
    }
}

#endif
