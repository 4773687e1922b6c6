/* The second stage of LOGITS_PROCESS, in the order and arithmetic of src/backend/ref/process_warp.c, whose names these are.
 *
 * Shapes    x, y [S, V] fp32
 * Parallel  a block PROCESS_PART logits of a row where each stands for itself (nothing to do, temperature); where ids are taken
 *           away or the row is normalised, one block a row. What is left of a row is y itself, with -infinity for the rest, or
 * a list in shared memory once it is short. Nothing is sorted: which ids stay follows from the last one that does, and
 *           select_last() finds that in two or three passes. A short top_k is found by one pass: see reached_by()
 * Needs     nothing
 * Floor     8*V bytes a row. V=50257 by one block: read, read again for the list, write: 10 us with top_k */
#include "process.cuh"

namespace
{

enum { LIST = 2048, TOP = 100, TOP_ROOM = 128 };

struct list {
    float scores[LIST];
    int32_t ids[LIST];
};

struct room {
    bins b;
    list l;
    uint64_t top[TOP_ROOM];
    double weights[TOP_ROOM];
    uint64_t sums[WARPS_MAX];
    int count;
};

/* The ids that are left of a row. */
struct survivors {
    float *scores;      /* -infinity: not left */
    const int32_t *ids; /* NULL: the index is the id */
    int64_t n;          /* numbers, with those not left */
    int64_t keep;       /* as many are always left */
    float max;          /* of those left */
    uint64_t low, high; /* all keys are in this range */
    room *r;
};

/* visit(index, id, score) for all that are left. */
template <typename Visit>
__device__ void for_left(const survivors &l, Visit visit)
{
    for_row(l.scores, l.n, [&](uint32_t i, float score) {
        if (score > -CUDART_INF_F) visit(i, (uint32_t)(l.ids ? l.ids[i] : (int32_t)i), score);
    });
}

/* Takes away what stays(id, score) does not want. */
template <typename Stays>
__device__ void keep_if(const survivors &l, Stays stays)
{
    for_left(l, [&](uint32_t i, uint32_t id, float score) {
        if (!stays(id, score)) l.scores[i] = -CUDART_INF_F;
    });
    __syncthreads();
}

__device__ uint64_t sum_of(const survivors &l)
{
    uint64_t sum = 0;

    for_left(l, [&](uint32_t, uint32_t, float score) { sum += weight_of(score, l.max); });
    return block_add(sum, l.r->sums);
}

/* As many decimals as there are; only for what is near a limit, and sums that are compared with one another. */
__device__ double weight(const survivors &l, float score)
{
    return exp((double)score - (double)l.max);
}

/* Whether the weight is at least `least`: mostly told by the quick one. */
__device__ bool weighs(const survivors &l, float score, double least)
{
    const double quick = (double)exp_of(score - l.max);
    if (fabs(quick - least) > 1e-5 * least) return quick > least;
    return weight(l, score) >= least;
}

/* low_first() of the k-th best, or of the last one. */
__device__ uint64_t key_of_rank(const survivors &l, int64_t k)
{
    return select_last(&l.r->b, l.low, l.high, {(uint64_t)k, 0}, [&](auto offer) {
        for_left(l, [&](uint32_t, uint32_t id, float score) { offer(low_first(score, id), 0); });
    });
}

__device__ float score_of_rank(const survivors &l, int64_t k)
{
    return k <= 1 ? l.max : score_of(key_of_rank(l, k));
}

/* How many of r->top, best first and with their weights, top_h keeps. */
__device__ int kept_by_entropy(const room *r, int count, float top_h)
{
    double sum = 0, total = 0, running = 0;
    int kept = 1;

    for (int i = 0; i < count; i++) sum += r->weights[i];
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < count; i++) {
            const double p = r->weights[i] / sum;
            const bool is_there = (float)p > 0;
            if (pass == 0) {
                total += is_there ? -p * log(p) : 0;
                continue;
            }
            running += is_there ? -p * log(p) : CUDART_INF;
            if (i > 0 && running > total * (double)top_h) return kept;
            kept = i + 1;
        }
    }
    return kept;
}

__device__ void top_h(const survivors &l, float top_h)
{
    __shared__ uint64_t last;
    room *r = l.r;
    const uint64_t cut = key_of_rank(l, TOP);
    uint64_t own = 0;
    int rank = 0;

    if (threadIdx.x == 0) r->count = 0;
    __syncthreads();
    for_left(l, [&](uint32_t, uint32_t id, float score) {
        const uint64_t key = low_first(score, id);
        if (key >= cut) r->top[atomicAdd(&r->count, 1)] = key;
    });
    __syncthreads();
    if ((int)threadIdx.x < r->count) {
        own = r->top[threadIdx.x];
        for (int i = 0; i < r->count; i++) rank += r->top[i] > own;
    }
    __syncthreads();
    if (own > 0) {
        r->top[rank] = own;
        r->weights[rank] = weight(l, score_of(own));
    }
    __syncthreads();
    if (threadIdx.x == 0) last = r->top[kept_by_entropy(r, r->count, top_h) - 1];
    __syncthreads();
    keep_if(l, [&](uint32_t id, float score) { return low_first(score, id) >= last; });
}

__device__ void top_k(const survivors &l, int64_t k)
{
    const float cut = score_of_rank(l, k);
    keep_if(l, [&](uint32_t, float score) { return score >= cut; });
}

__device__ void top_p(const survivors &l, float top_p)
{
    const double sum = (double)sum_of(l), out = (1 - (double)top_p) * sum;
    const quota q = {(uint64_t)l.keep, __double2ull_ru(sum - out)};
    const uint64_t cut = select_last(&l.r->b, l.low, l.high, q, [&](auto offer) {
        for_left(l, [&](uint32_t, uint32_t id, float score) { offer(high_first(score, id), weight_of(score, l.max)); });
    });
    keep_if(l, [&](uint32_t id, float score) { return high_first(score, id) >= cut; });
}

__device__ void min_p(const survivors &l, float least)
{
    const uint64_t last = l.keep > 1 ? key_of_rank(l, l.keep) : ~(uint64_t)0;
    keep_if(l, [&](uint32_t id, float score) { return low_first(score, id) >= last || weighs(l, score, (double)least); });
}

/* Summed in the units of weights, so that the order of the terms does not count. */
__device__ double entropy_of(const survivors &l, double sum)
{
    const double log_sum = log(sum);
    uint64_t entropy = 0;

    for_left(l, [&](uint32_t, uint32_t, float score) {
        const double w = weight(l, score);
        if (w > 0) entropy += (uint64_t)__double2ll_rn(w * (log_sum - ((double)score - (double)l.max)) * 0x1p40);
    });
    return (double)(int64_t)block_add(entropy, l.r->sums) * 0x1p-40 / sum;
}

__device__ float surprise(const survivors &l, float score, float log_sum, float entropy)
{
    return fabsf(-(score - l.max - log_sum) - entropy);
}

/* Equal ones at the cut stay together, but not those that are kept for their number alone. */
__device__ void typical(survivors *l, float mass)
{
    const uint64_t whole = sum_of(*l), wanted = __double2ull_ru((double)mass * (double)whole);
    const double sum = number_of_sum(whole);
    const float log_sum = (float)log(sum), entropy = (float)entropy_of(*l, sum);
    const auto key_of = [&](uint32_t id, float score) { return high_first(-surprise(*l, score, log_sum, entropy), id); };
    const auto last_of = [&](quota q) {
        return select_last(&l->r->b, high_first(-CUDART_INF_F, 0), high_first(0, 0xffffffffu), q, [&](auto offer) {
            for_left(*l, [&](uint32_t, uint32_t id, float score) { offer(key_of(id, score), weight_of(score, l->max)); });
        });
    };
    const uint64_t cut = last_of({0, wanted}) >> 32 << 32;
    const uint64_t last = l->keep > 1 ? last_of({(uint64_t)l->keep, wanted}) : cut;
    uint64_t best = 0;

    keep_if(*l, [&](uint32_t id, float score) { return key_of(id, score) >= min(cut, last); });
    for_left(*l, [&](uint32_t, uint32_t, float score) { best = max(best, (uint64_t)order_of(score)); });
    l->max = number_of((uint32_t)block_most(best, l->r->sums));
}

__device__ void cut_off(const survivors &l, double least)
{
    const double sum = number_of_sum(sum_of(l));
    const float best = score_of_rank(l, l.keep);
    keep_if(l, [&](uint32_t, float score) { return score >= best || weighs(l, score, least * sum); });
}

__device__ double eta(const survivors &l, float epsilon)
{
    const double entropy = entropy_of(l, number_of_sum(sum_of(l)));
    return fmin((double)epsilon, sqrt((double)epsilon) * exp(-entropy));
}

/* Puts what reaches `low` into the list; whether that was long enough. */
__device__ bool list_those(survivors *l, float low)
{
    room *r = l->r;

    if (threadIdx.x == 0) r->count = 0;
    __syncthreads();
    for_left(*l, [&](uint32_t, uint32_t id, float score) {
        if (!(score >= low)) return;
        const int at = atomicAdd(&r->count, 1);
        if (at >= LIST) return;
        r->l.scores[at] = score;
        r->l.ids[at] = (int32_t)id;
    });
    __syncthreads();
    if (r->count > LIST) return false;
    l->scores = r->l.scores;
    l->ids = r->l.ids;
    l->n = r->count;
    return true;
}

/* top_k where no processor comes before it: `best` is the thread's own. */
__device__ void top_k_first(survivors *l, int64_t k, uint64_t best)
{
    if (k <= DRAW_THREADS) list_those(l, score_of(reached_by(&l->r->b, best, (uint64_t)k)));
    top_k(*l, k);
    if (!l->ids) list_those(l, -CUDART_INF_F);
}

__device__ void filter(survivors *l, const tfi_sampling *s, uint64_t best)
{
    const int64_t k = s->top_k > 0 && s->top_k < l->keep ? l->keep : s->top_k;

    if (isnan(s->top_h)) {
        if (k > 0 && k < l->n) top_k_first(l, k, best);
    } else {
        top_h(*l, s->top_h);
        if (k > 0) top_k(*l, k);
    }
    if (s->top_p < 1) top_p(*l, s->top_p);
    if (!isnan(s->min_p)) min_p(*l, s->min_p);
    if (s->typical_p < 1) typical(l, s->typical_p);
    if (s->epsilon_cutoff > 0) cut_off(*l, (double)s->epsilon_cutoff);
    if (s->eta_cutoff > 0) cut_off(*l, eta(*l, s->eta_cutoff));
}

__device__ bool filters(const tfi_sampling *s)
{
    return s->do_sample && (!isnan(s->top_h) || s->top_k > 0 || s->top_p < 1 || !isnan(s->min_p) || s->typical_p < 1 ||
                            s->epsilon_cutoff > 0 || s->eta_cutoff > 0);
}

__device__ void unlist(const survivors &l, float *y, int64_t V)
{
    if (!l.ids) return;
    for (int64_t i = threadIdx.x; i < V; i += DRAW_THREADS) y[i] = -CUDART_INF_F;
    __syncthreads();
    for_left(l, [&](uint32_t i, uint32_t id, float score) { y[id] = score; });
    __syncthreads();
}

__device__ void filter_row(const tfi_sampling *s, const float *x, float *y, int64_t V, room *r)
{
    uint64_t best = 0, least = ~(uint64_t)0;
    bool invalid = false;

    for_row(x, V, [&](uint32_t i, float logit) {
        const float v = y[i] = logit / s->temperature;
        const uint64_t key = low_first(v, i);
        invalid |= is_invalid(v);
        best = max(best, key);
        if (v > -CUDART_INF_F) least = min(least, key);
    });
    if (__syncthreads_or(invalid)) return;
    const float max = score_of(block_most(best, r->sums));
    if (max == -CUDART_INF_F) return;
    survivors l = {y, NULL, V, 1, max, 0, 0, r};
    l.low = ~block_most(~least, r->sums) >> 32 << 32;
    l.high = (uint64_t)order_of(max) << 32 | 0xffffffffu;
    if (s->num_beams > 1) l.keep = s->eos_count > 0 ? s->eos_count + 1 : 2;
    filter(&l, s, best);
    unlist(l, y, V);
}

__global__ void __launch_bounds__(DRAW_THREADS, 1) warp(tfi_process_args a, const tfi_cuda_live *live)
{
    begin();
    __shared__ room r;
    const int64_t row = blockIdx.x, part = blockIdx.y * (int64_t)PROCESS_PART;
    const float *x = a.x + row * a.V;
    float *y = a.y + row * a.V;

    if (row >= live->rows[TFI_ROWS_SELECTED]) return;
    const tfi_sampling *s = a.row_slots[row] < 0 ? NULL : a.slots[a.row_slots[row]].sampling;
    const bool filtered = s && filters(s), whole = filtered || (s && s->renormalize_logits);
    if (whole && part > 0) return;
    const int64_t end = whole ? a.V : min(part + PROCESS_PART, a.V);
    if (filtered) filter_row(s, x, y, a.V, &r);
    else if (s && s->do_sample) copy_part(x, y, part, end, [&](float v) { return v / s->temperature; });
    else copy_part(x, y, part, end, [](float v) { return v; });
    if (!s || !s->renormalize_logits) return;
    __syncthreads();
    const log_scale scale = log_scale_of(y, a.V, r.sums);
    copy_part(y, y, 0, a.V, [&](float v) { return v - scale.max - scale.log_sum; });
}

} // namespace

tf_status tfi_cuda_warp(const tfi_cuda_launch *l, const tfi_process_args *a)
{
    return start(l, "LOGITS_PROCESS", warp, process_grid(a), DRAW_THREADS, 0, *a, l->live);
}
