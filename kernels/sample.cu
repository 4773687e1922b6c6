/* SAMPLE: the next token of each sequence without beams; what it computes: src/backend/ref/sample.c
 *
 * Shapes    x, logits [S, V] fp32, draws, choices [count]
 * Parallel  a team a draw; settings are read before the wait. To draw, each warp of the team has an equal part of the row, so
 *           that the warp where the running sum passes the target is known from all warps' sums; there each lane takes a run
 *           of ids, and the lane where the sum passes finds the id
 * Needs     nothing: V of GPT-2 is odd, rows are not aligned
 * Floor     8*V bytes a draw, from L2; V=50257: four reads of L2 and two gathers, one behind the other: 3 us
 * Measured  3.2 us for the best, 6.8 to draw, 64 rows 9.4 and 22 on H200; by one block a row 9.9, 26, 10.8, 33 */
#include "team.cuh"

namespace
{

/* A draw's token, or -1 where none can be told. One thread of the team has to write it down. */
struct drawn {
    int32_t token;
    bool is_own;
};

__device__ drawn by_first_thread(const team &t, int64_t token)
{
    return {(int32_t)token, t.member == 0 && threadIdx.x == 0};
}

/* The sum of the weights of x[begin] to x[end - 1], each lane adding every `step`-th. */
__device__ uint64_t sum_of(const float *x, int64_t begin, int64_t end, int64_t step, float max)
{
    enum { LOADS = 8 };
    uint64_t sum = 0;

    for (int64_t i = begin; i < end; i += LOADS * step) {
        float v[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; k++) v[k] = i + k * step < end ? x[i + k * step] : -CUDART_INF_F;
#pragma unroll
        for (int k = 0; k < LOADS; k++) sum += weight_of(v[k], max);
    }
    return sum;
}

/* The first id of [begin, end) whose weight, with `before` and all before it, exceeds the target, which is in this warp's part.
 */
__device__ drawn find(const float *x, int64_t begin, int64_t end, float max, uint64_t before, uint64_t target)
{
    const int lane = threadIdx.x % WARP;
    const int64_t run = (end - begin + WARP - 1) / WARP, first = min(begin + lane * run, end), last = min(first + run, end);
    const uint64_t own = sum_of(x, first, last, 1, max);
    uint64_t running = own;

    for (int k = 1; k < WARP; k *= 2) {
        const uint64_t left = __shfl_up_sync(0xffffffffu, running, k);
        if (lane >= k) running += left;
    }
    running += before - own;
    if (target < running || target >= running + own) return {0, false};
    for (int64_t i = first;; i++) {
        running += weight_of(x[i], max);
        if (running > target) return {(int32_t)i, true};
    }
}

/* The first id whose weight, with all before it, exceeds that part of the whole. */
__device__ drawn draw_at(team &t, const float *x, int64_t V, float max, double uniform)
{
    const unsigned own = team_warp(t);
    const part p = part_of(V, own, team_warps(t));
    const int64_t begin = p.begin, end = begin + p.count;
    const uint64_t sum = warp_add(sum_of(x, begin + threadIdx.x % WARP, end, WARP, max));
    const ulonglong2 *sums = gather(t, sum, 0);
    uint64_t before = 0, whole = 0;

    for (unsigned w = threadIdx.x % WARP; w < team_warps(t); w += WARP) {
        whole += sums[w].x;
        if (w < own) before += sums[w].x;
    }
    before = warp_add(before);
    whole = warp_add(whole);
    const uint64_t target = min((uint64_t)(uniform * (double)whole), whole - 1);
    if (target < before || target >= before + sum) return {0, false};
    return find(x, begin, end, max, before, target);
}

__device__ drawn choose(team &t, const tfi_sampling &s, uint32_t step, uint32_t sequence, const float *x, const float *logits,
                        int64_t V)
{
    const part p = own_part(t, V);
    row_facts own = own_facts(x, p);

    if (!s.remove_invalid_values) for_row(logits + p.begin, p.count, [&](uint32_t, float v) { own.invalid |= is_invalid(v); });
    const row_facts f = team_facts(t, own);
    const float max = score_of(f.best);
    if (f.invalid || (s.do_sample && max == -CUDART_INF_F)) return by_first_thread(t, -1);
    if (!s.do_sample) return by_first_thread(t, index_of(f.best));
    return draw_at(t, x, V, max, uniform_of(s.seed, step, sequence, 0));
}

__global__ void __launch_bounds__(TEAM_THREADS) sample(tfi_draw_args a, const tfi_cuda_live *live)
{
    __shared__ team_slots slots;
    follow();
    team t = join(&slots);
    const int64_t i = team_index(t);
    tfi_draw draw = {};
    tfi_sampling s = {};
    s.num_beams = 2; /* as if it were another's */
    if (i < live->draws) {
        draw = a.draws[i];
        s = *a.slots[draw.slot].sampling;
    }
    wait_for_results();
    if (s.num_beams > 1) return;
    tfi_slot *slot = &a.slots[draw.slot];
    const float *logits = a.logits + draw.row * a.V;
    const int32_t count = __ldcg(&slot->count); /* not what was there before the wait */
    const double log_sum = s.logprobs ? log_sum_exp(t, logits, own_part(t, a.V)) : 0;
    const drawn d = choose(t, s, (uint32_t)(count - s.prompt), (uint32_t)slot->sequence, a.x + draw.row * a.V, logits, a.V);
    if (!d.is_own) return;
    tfi_choice choice = {};
    choice.token = d.token;
    choice.parent = slot->sequence;
    choice.finished_from = -2;
    if (d.token < 0) choice.stop = TFI_STOP_NUMERIC;
    else if (s.logprobs) choice.logprob = (float)((double)logits[d.token] - log_sum);
    a.choices[i] = choice;
    if (d.token < 0) return;
    slot->tokens[count] = d.token;
    slot->count = count + 1;
}

} // namespace

extern "C" tf_status tfi_cuda_sample(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    if (a->count == 0) return TF_STATUS_OK;
    return start_teams(l, "SAMPLE", sample, a->count, team_size(l, a->count, 2), 0, *a, l->live);
}
