/* SAMPLE: the next token of each sequence without beams; what it computes: src/backend/ref/sample.c
 *
 * Shapes    x, logits [S, V] fp32, draws, choices [count]
 * Parallel  a block a draw. To draw, each warp has an equal part of the row, so that the warp where the running sum passes the
 *           target, and then the 32 ids, and then the id are found without a second pass over the other parts
 * Needs     nothing: V of GPT-2 is odd, rows are not aligned
 * Floor     8*V bytes a draw, from L2 by one multiprocessor: about 64 bytes a clock; V=50257: 3.6 us */
#include "draw.cuh"

namespace
{

/* The first id whose weight, with all before it, exceeds `target`, which is less than the sum of them. Every thread gets it. */
__device__ int64_t draw_at(const float *x, int64_t V, float max, double uniform, uint64_t *shared)
{
    __shared__ int64_t token;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t part = (V + WARPS_MAX * WARP - 1) / (WARPS_MAX * WARP) * WARP, begin = min(warp * part, V),
                  end = min(begin + part, V);
    uint64_t sum = 0, before = 0, whole = 0;

    for (int64_t i = begin + lane; i < end; i += WARP) sum += weight_of(x[i], max);
    sum = warp_add(sum);
    if (lane == 0) shared[warp] = sum;
    __syncthreads();
    for (int w = 0; w < WARPS_MAX; w++) {
        if (w < warp) before += shared[w];
        whole += shared[w];
    }
    const uint64_t target = min((uint64_t)(uniform * (double)whole), whole - 1);
    if (before <= target && target < before + sum) {
        for (int64_t i = begin;; i += WARP) {
            uint64_t running = i + lane < end ? weight_of(x[i + lane], max) : 0;
            for (int k = 1; k < WARP; k *= 2) {
                const uint64_t left = __shfl_up_sync(0xffffffffu, running, k);
                if (lane >= k) running += left;
            }
            const unsigned beyond = __ballot_sync(0xffffffffu, before + running > target);
            if (beyond) {
                if (lane == 0) token = i + __ffs((int)beyond) - 1;
                break;
            }
            before += __shfl_sync(0xffffffffu, running, WARP - 1);
        }
    }
    __syncthreads();
    return token;
}

/* The token for a row, or -1 if there is none that could be told. */
__device__ int64_t choose(const tfi_slot *slot, const float *x, const float *logits, int64_t V, uint64_t *shared)
{
    const tfi_sampling *s = slot->sampling;

    if (!s->remove_invalid_values && row_invalid(logits, V)) return -1;
    const row_facts f = facts_of(x, V, shared);
    const float max = score_of(f.best);
    if (f.invalid) return -1;
    if (!s->do_sample) return index_of(f.best);
    if (max == -CUDART_INF_F) return -1;
    return draw_at(x, V, max, uniform_of(s->seed, (uint32_t)(slot->count - s->prompt), (uint32_t)slot->sequence, 0), shared);
}

__global__ void __launch_bounds__(DRAW_THREADS, 1) sample(tfi_draw_args a, const tfi_cuda_live *live)
{
    begin();
    __shared__ uint64_t shared[WARPS_MAX];
    const int64_t i = blockIdx.x;

    if (i >= live->draws) return;
    const tfi_draw draw = a.draws[i];
    tfi_slot *slot = &a.slots[draw.slot];
    if (slot->sampling->num_beams > 1) return;
    const float *logits = a.logits + draw.row * a.V;
    const int64_t token = choose(slot, a.x + draw.row * a.V, logits, a.V, shared);
    tfi_choice choice = {};
    choice.token = (int32_t)token;
    choice.parent = slot->sequence;
    choice.finished_from = -2;
    if (token < 0) choice.stop = TFI_STOP_NUMERIC;
    else if (slot->sampling->logprobs) choice.logprob = (float)((double)logits[token] - log_sum_exp(logits, a.V, shared));
    __syncthreads(); /* all have read the slot's count */
    if (threadIdx.x > 0) return;
    a.choices[i] = choice;
    if (token >= 0) slot->tokens[slot->count++] = (int32_t)token;
}

} // namespace

extern "C" tf_status tfi_cuda_sample(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    if (a->count == 0) return TF_STATUS_OK;
    return start(l, "SAMPLE", sample, (unsigned)a->count, DRAW_THREADS, 0, *a, l->live);
}
