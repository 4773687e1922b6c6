/* The second stage of LOGITS_PROCESS, in the order and arithmetic of src/backend/ref/process_warp.c, whose names these are.
 *
 * Shapes    x, y [S, V] fp32
 * Parallel  the blocks of a row have equal parts of it; where ids are taken away or the row is normalised they work as a
 *           team, or the first alone does where a team is one block. What is left of a row, with -infinity for the rest, is
 *           in the members' shared memory, or in y where it is too long for that. Nothing is sorted: which ids stay follows
 *           from the last one that does, and select_last() finds that in two or three passes
 * Needs     nothing
 * Floor     8*V bytes a row; filters: a pass over shared memory for each of their sums, with a gather, and for each step of a
 *           selection, with an exchange and two gathers; V=50257: 1 us and 2.5 us
 * Measured  1.7 us where nothing is asked; top_p 21 us, after top_k 23 to 28: the first step of a selection takes 6 us, the
 *           others, whose code has been read, 5; 64 rows 5.4, 64, 55; on H200. By one block a row: 77 and 35 us, and for 64
 *           rows 92 and 41
 * Tried     vectors of y from L2 with all of a thread's loads under way, and so 18 copies of each pass's code: top_p 25 us;
 *           two blocks a multiprocessor with 64 registers each: 64 rows 80 and 96 */
#include "process.cuh"
#include "select.cuh"

namespace
{

enum { TOP = 100, TOP_ROOM = 128 };

struct room {
    bins b;
    uint64_t top[TOP_ROOM], last;
    double weights[TOP_ROOM], terms[TOP_ROOM];
    int count;
};

/* The ids that are left of a row: this member's part. */
struct survivors {
    float *scores;      /* -infinity: not left */
    part own;           /* of the row */
    int64_t keep;       /* as many are always left */
    float max;          /* of those left */
    uint64_t low, high; /* all keys are in this range */
    team *t;
    room *r;
};

/* visit(index, id, score) for all that are left, always the same by a thread. There is one copy of the code, which is read once
 * for each pass; the next number is on its way meanwhile. */
template <typename Visit>
__device__ void for_left(const survivors &l, Visit visit)
{
    const uint32_t count = (uint32_t)l.own.count;
    uint32_t i = threadIdx.x;
    float next = i < count ? l.scores[i] : 0;

#pragma unroll 1
    while (i < count) {
        const uint32_t at = i;
        const float score = next;
        i += blockDim.x;
        if (i < count) next = l.scores[i];
        if (score > -CUDART_INF_F) visit(at, (uint32_t)l.own.begin + at, score);
    }
}

/* Takes away what stays(id, score) does not want. */
template <typename Stays>
__device__ void keep_if(const survivors &l, Stays stays)
{
    for_left(l, [&](uint32_t i, uint32_t id, float score) {
        if (!stays(id, score)) l.scores[i] = -CUDART_INF_F;
    });
}

__device__ uint64_t sum_of(const survivors &l)
{
    uint64_t sum = 0;

    for_left(l, [&](uint32_t, uint32_t, float score) { sum += weight_of(score, l.max); });
    return team_add(*l.t, sum);
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
    return select_last(*l.t, &l.r->b, l.low, l.high, {(uint64_t)k, 0}, [&](auto offer) {
        for_left(l, [&](uint32_t, uint32_t id, float score) { offer(low_first(score, id), weightless); });
    });
}

__device__ float score_of_rank(const survivors &l, int64_t k)
{
    return k <= 1 ? l.max : score_of(key_of_rank(l, k));
}

/* How many of r->top, best first and with their weights, top_h keeps. Sums are those of one thread, in order. */
__device__ int kept_by_entropy(room *r, int count, float top_h)
{
    double sum = 0, total = 0, running = 0;
    int kept = 1;

    for (int i = 0; i < count; i++) sum += r->weights[i];
    if ((int)threadIdx.x < count) {
        const double p = r->weights[threadIdx.x] / sum;
        r->terms[threadIdx.x] = (float)p > 0 ? -p * log(p) : CUDART_INF; /* which is never kept */
    }
    __syncthreads();
    for (int i = 0; i < count; i++) total += r->terms[i] < CUDART_INF ? r->terms[i] : 0;
    for (int i = 0; i < count; i++) {
        running += r->terms[i];
        if (i > 0 && running > total * (double)top_h) break;
        kept = i + 1;
    }
    return kept;
}

/* By the first member: the rank of each of r->top by counting who is better. */
__device__ uint64_t last_by_entropy(const survivors &l, float top_h)
{
    room *r = l.r;
    const int count = r->count, i = (int)threadIdx.x;
    const uint64_t own = i < count ? r->top[i] : 0;
    int rank = 0;

    for (int k = 0; i < count && k < count; k++) rank += r->top[k] > own;
    __syncthreads();
    if (i < count) {
        r->top[rank] = own;
        r->weights[rank] = weight(l, score_of(own));
    }
    __syncthreads();
    return r->top[kept_by_entropy(r, count, top_h) - 1];
}

__device__ void top_h(const survivors &l, float top_h)
{
    room *r = l.r, *first = of_member(r, 0);

    if (threadIdx.x == 0) r->count = 0;
    const uint64_t cut = key_of_rank(l, TOP);
    for_left(l, [&](uint32_t, uint32_t id, float score) {
        const uint64_t key = low_first(score, id);
        if (key >= cut) first->top[atomicAdd(&first->count, 1)] = key;
    });
    team_sync();
    if (l.t->member == 0) {
        const uint64_t last = last_by_entropy(l, top_h);
        if (threadIdx.x < l.t->size) of_member(r, threadIdx.x)->last = last;
    }
    team_sync();
    keep_if(l, [&](uint32_t id, float score) { return low_first(score, id) >= r->last; });
}

__device__ void top_k(const survivors &l, int64_t k)
{
    const float cut = score_of_rank(l, k);
    keep_if(l, [&](uint32_t, float score) { return score >= cut; });
}

/* Those below an n-th of what is taken away need not be looked at: all of them together are less than that. */
__device__ void top_p(const survivors &l, int64_t V, float top_p)
{
    const double sum = (double)sum_of(l), out = (1 - (double)top_p) * sum, each = out / (double)V;
    const quota q = {(uint64_t)l.keep, __double2ull_ru(sum - out)};
    uint64_t low = l.low;
    if (l.keep == 1 && each >= 1024) /* units: a rounded one is far less than the thousandth of slack */
        low = max(low, high_first(l.max + (float)log(each * 0x1p-40) - 1e-3f, 0));
    const uint64_t cut = select_last(*l.t, &l.r->b, low, l.high, q, [&](auto offer) {
        for_left(l, [&](uint32_t, uint32_t id, float score) {
            offer(high_first(score, id), [&] { return weight_of(score, l.max); });
        });
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
    return (double)(int64_t)team_add(*l.t, entropy) * 0x1p-40 / sum;
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
        return select_last(*l->t, &l->r->b, high_first(-CUDART_INF_F, 0), high_first(0, 0xffffffffu), q, [&](auto offer) {
            for_left(*l, [&](uint32_t, uint32_t id, float score) {
                offer(key_of(id, score), [&] { return weight_of(score, l->max); });
            });
        });
    };
    const uint64_t cut = last_of({0, wanted}) >> 32 << 32;
    const uint64_t last = l->keep > 1 ? last_of({(uint64_t)l->keep, wanted}) : cut;
    uint64_t best = 0;

    keep_if(*l, [&](uint32_t id, float score) { return key_of(id, score) >= min(cut, last); });
    for_left(*l, [&](uint32_t, uint32_t, float score) { best = max(best, (uint64_t)order_of(score)); });
    l->max = number_of((uint32_t)team_most(*l->t, best));
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

__device__ void filter(survivors *l, const tfi_sampling *s, int64_t V)
{
    const int64_t k = s->top_k > 0 && s->top_k < l->keep ? l->keep : s->top_k;

    if (!isnan(s->top_h)) top_h(*l, s->top_h);
    if (k > 0 && k < V) top_k(*l, k);
    if (s->top_p < 1) top_p(*l, V, s->top_p);
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

/* staged: shared memory for this member's part, or NULL. */
__device__ void filter_row(team *t, const tfi_sampling *s, const float *x, float *y, int64_t V, float *staged, room *r)
{
    const part own = own_part(*t, V);
    survivors l = {staged ? staged : y + own.begin, own, 1, 0, 0, 0, t, r};
    uint64_t best = 0, least = ~(uint64_t)0;
    bool invalid = false;

    for_row(x + own.begin, own.count, [&](uint32_t i, float logit) { l.scores[i] = logit / s->temperature; });
    __syncthreads(); /* from now on numbers are other threads' */
    for (uint32_t i = threadIdx.x; i < (uint32_t)own.count; i += blockDim.x) {
        const float v = l.scores[i];
        invalid |= is_invalid(v);
        best = max(best, (uint64_t)order_of(v));
        if (v > -CUDART_INF_F) least = min(least, (uint64_t)order_of(v));
    }
    best = team_most(*t, invalid ? ~(uint64_t)0 : best);
    least = ~team_most(*t, ~least);
    l.max = number_of((uint32_t)best);
    if (best < ~(uint64_t)0 && l.max > -CUDART_INF_F) {
        l.low = least << 32;
        l.high = best << 32 | 0xffffffffu;
        if (s->num_beams > 1) l.keep = s->eos_count > 0 ? s->eos_count + 1 : 2;
        filter(&l, s, V);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; staged && i < own.count; i += blockDim.x) y[own.begin + i] = staged[i];
}

__global__ void __launch_bounds__(TEAM_THREADS)
    warp(tfi_process_args a, const tfi_cuda_live *live, unsigned parts, bool is_staged)
{
    extern __shared__ float staged[];
    __shared__ team_slots slots;
    __shared__ room r;
    __shared__ tfi_sampling s;
    follow();
    team t = join(&slots);
    const int64_t row = blockIdx.x / parts;
    const unsigned index = blockIdx.x % parts;
    const bool lives = row < live->rows[TFI_ROWS_SELECTED];
    const tfi_sampling *settings = lives && a.row_slots[row] >= 0 ? a.slots[a.row_slots[row]].sampling : NULL;
    if (settings) copy_settings(settings, &s);
    const bool filtered = settings && filters(&s), whole = filtered || (settings && s.renormalize_logits);
    wait_for_results();
    if (!lives || (whole && t.size == 1 && index > 0)) return;
    const part p = whole ? own_part(t, a.V) : part_of(a.V, index, parts);
    const float *x = a.x + row * a.V;
    float *y = a.y + row * a.V;
    if (filtered) filter_row(&t, &s, x, y, a.V, is_staged ? staged : NULL, &r);
    else if (settings && s.do_sample) copy_row(x + p.begin, y + p.begin, p.count, [&](float v) { return v / s.temperature; });
    else copy_row(x + p.begin, y + p.begin, p.count, [](float v) { return v; });
    if (!settings || !s.renormalize_logits) return;
    __syncthreads();
    const log_scale scale = log_scale_of(t, y, p);
    copy_row(y + p.begin, y + p.begin, p.count, [&](float v) { return v - scale.max - scale.log_sum; });
}

} // namespace

tf_status tfi_cuda_warp(const tfi_cuda_launch *l, const tfi_process_args *a)
{
    enum { STAGED_MAX = 180 << 10 };
    const unsigned parts = process_parts(l, a, 1);
    const int64_t bytes = (a->V + parts - 1) / parts * (int64_t)sizeof(float);
    const bool is_staged = l->capability >= 90 && bytes <= STAGED_MAX;

    if (is_staged) (void)cudaFuncSetAttribute(warp, cudaFuncAttributeMaxDynamicSharedMemorySize, STAGED_MAX);
    return start_teams(l, "LOGITS_PROCESS", warp, a->S, parts, is_staged ? (size_t)bytes : 0, *a, l->live, parts, is_staged);
}
