/* BEAM_STEP: one step of beam search for each request that has beams; what it computes: src/backend/ref/beam_step.c, whose
 * names these are. Not requests whose stop strings ask a function of the host (tfi_sampling.completes): for those the backend
 * does the step on the host, and this one passes them by.
 *
 * Shapes    x, logits [S, V] fp32, draws, choices [count]
 * Parallel  a block a request. Of its beams * V continuations a threshold from the threads' largest leaves few more than the
 *           2 * beams that are wanted; from there on everything is ranked by counting who is better
 * Needs     scratch: a `work` for each request
 * Floor     12*V bytes a beam (raw logits once, processed ones twice), from L2 by one multiprocessor at about 64 bytes a clock;
 *           V=32128, 4 beams: 13 us */
#include "draw.cuh"

namespace
{

enum { LISTED_MAX = TFI_BEAM_CANDIDATES_MAX, BEAMS_MAX = TFI_BEAM_CANDIDATES_MAX / 2 };

struct candidate {
    float score;
    int32_t beam, token;
    int32_t ends;
};

struct work {
    uint64_t keys[LISTED_MAX + BEAMS_MAX]; /* what is being ranked */
    candidate candidates[LISTED_MAX];
    int32_t *tokens[BEAMS_MAX], *targets[BEAMS_MAX]; /* histories before and after the step */
    double log_sums[BEAMS_MAX];
    float scores[BEAMS_MAX];
    int8_t flags[BEAMS_MAX];
};

struct room {
    bins b;
    uint64_t sums[WARPS_MAX];
    int count;
    int8_t open;
};

struct search {
    const float *x, *logits;
    tfi_slot *slots;
    int64_t V;
    const tfi_draw *draws;
    tfi_choice *choices;
    const tfi_sampling *s;
    tfi_beams *finished;
    work *w;
    room *r;
    int32_t beams, length, count;
    float max; /* of all continuations, for the race */
};

__device__ constexpr float far_below = -1e9f;

__device__ tfi_slot *beam(const search &b, int32_t i)
{
    return &b.slots[b.draws[i].slot];
}

__device__ const float *row(const search &b, const float *rows, int32_t i)
{
    return rows + b.draws[i].row * b.V;
}

__device__ bool is_row_of_last(const search &b, int32_t i)
{
    return i > 0 && b.draws[i].row == b.draws[i - 1].row;
}

/* visit(i) for all i < count, spread over the block; what it wrote is there for all when this returns. */
template <typename Visit>
__device__ void for_all(int32_t count, Visit visit)
{
    for (int32_t i = threadIdx.x; i < count; i += DRAW_THREADS) visit(i);
    __syncthreads();
}

template <typename Is>
__device__ int32_t count_of(int32_t count, Is is)
{
    int32_t n = 0;
    for (int32_t i = 0; i < count; i += DRAW_THREADS)
        n += __syncthreads_count(i + (int32_t)threadIdx.x < count && is(i + (int32_t)threadIdx.x));
    return n;
}

/* take(rank, key) for the `wanted` largest of w->keys. */
template <typename Take>
__device__ void rank_keys(const search &b, int32_t count, int32_t wanted, Take take)
{
    const uint64_t *keys = b.w->keys;

    for_all(count, [&](int32_t i) {
        const uint64_t own = keys[i];
        int32_t rank = 0;
        for (int32_t k = 0; k < count; k++) rank += keys[k] > own;
        if (rank < wanted) take(rank, own);
    });
}

/* ---- candidates ---- */

__device__ bool is_valid(search *b)
{
    bool invalid = false;
    uint64_t best = 0;

    for (int32_t i = 0; i < b->beams; i++) {
        const float sum = beam(*b, i)->score;
        for_row(row(*b, b->x, i), b->V, [&](uint32_t, float v) {
            invalid |= is_invalid(v);
            best = max(best, (uint64_t)order_of(v + sum));
        });
        if (is_row_of_last(*b, i) || b->s->remove_invalid_values) continue;
        for_row(row(*b, b->logits, i), b->V, [&](uint32_t, float v) { invalid |= is_invalid(v); });
    }
    b->max = number_of((uint32_t)block_most(best, b->r->sums));
    return !__syncthreads_or(invalid);
}

/* The place of a token in the race of those that are drawn without replacement. */
__device__ __noinline__ float race(const search &b, float score, uint32_t index)
{
    const uint32_t step = (uint32_t)(b.length - b.s->prompt);
    const double e = -log1p(-uniform_of(b.s->seed, step, index, 1));
    return (float)((double)score - (double)b.max - log(e));
}

/* visit(key) for all continuations. */
template <typename Visit>
__device__ void for_continuations(const search &b, Visit visit)
{
    for (int32_t i = 0; i < b.beams; i++) {
        const float sum = beam(b, i)->score;
        const uint32_t base = (uint32_t)i * (uint32_t)b.V;
        if (b.s->do_sample) {
            for (int64_t k = threadIdx.x; k < b.V; k += DRAW_THREADS) {
                const float x = row(b, b.x, i)[k];
                const bool runs = x > -CUDART_INF_F;
                visit(low_first(runs ? race(b, x + sum, base + (uint32_t)k) : -CUDART_INF_F, base + (uint32_t)k));
            }
        } else {
            for_row(row(b, b.x, i), b.V, [&](uint32_t k, float v) { visit(low_first(v + sum, base + k)); });
        }
    }
}

/* The continuations that reach `low`, as many as there is room for; how many there are. */
__device__ int32_t list_those(const search &b, uint64_t low)
{
    __syncthreads();
    if (threadIdx.x == 0) b.r->count = 0;
    __syncthreads();
    for_continuations(b, [&](uint64_t key) {
        if (key < low) return;
        const int at = atomicAdd(&b.r->count, 1);
        if (at < LISTED_MAX) b.w->keys[at] = key;
    });
    __syncthreads();
    return b.r->count;
}

/* The best continuations, and a few more. */
__device__ int32_t list_best(const search &b, int32_t wanted)
{
    uint64_t largest = 0, low = 0;

    if (b.beams * b.V > LISTED_MAX) {
        for_continuations(b, [&](uint64_t key) { largest = max(largest, key); });
        if (wanted <= DRAW_THREADS) low = reached_by(&b.r->b, largest, (uint64_t)wanted);
    }
    const int32_t count = list_those(b, low);
    if (count <= LISTED_MAX) return count;
    low = select_last(&b.r->b, 0, ~(uint64_t)0, {(uint64_t)wanted, 0},
                      [&](auto offer) { for_continuations(b, [&](uint64_t key) { offer(key, 0); }); });
    return list_those(b, low);
}

__device__ bool ends(const search &b, int32_t token)
{
    for (int32_t i = 0; i < b.s->eos_count; i++)
        if (b.s->eos[i] == token) return true;
    return b.length + 1 >= b.s->max_length;
}

__device__ void rank_candidates(search *b)
{
    const int64_t all = b->beams * b->V;
    const int64_t wanted = (b->s->eos_count > 1 ? 1 + (int64_t)b->s->eos_count : 2) * b->beams; /* tfi_beam_candidates() */

    b->count = (int32_t)(wanted < all ? wanted : all);
    rank_keys(*b, list_best(*b, b->count), b->count, [&](int32_t rank, uint64_t key) {
        candidate c;
        c.beam = (int32_t)(index_of(key) / (uint32_t)b->V);
        c.token = (int32_t)(index_of(key) % (uint32_t)b->V);
        c.score = row(*b, b->x, c.beam)[c.token] + beam(*b, c.beam)->score;
        c.ends = ends(*b, c.token);
        b->w->candidates[rank] = c;
    });
}

__device__ void sum_logits(const search &b)
{
    double sum = 0;

    for (int32_t i = 0; b.s->logprobs && i < b.beams; i++) {
        if (!is_row_of_last(b, i)) sum = log_sum_exp(row(b, b.logits, i), b.V, b.r->sums);
        if (threadIdx.x == 0) b.w->log_sums[i] = sum;
    }
    __syncthreads();
}

__device__ float logprob(const search &b, const candidate *c)
{
    return b.s->logprobs ? (float)((double)row(b, b.logits, c->beam)[c->token] - b.w->log_sums[c->beam]) : 0;
}

/* ---- finished sequences ---- */

__device__ float length_factor(const tfi_sampling *s, int32_t drawn)
{
    return (float)pow((double)drawn, (double)s->length_penalty);
}

__device__ bool all_finished(const search &b)
{
    return count_of(b.beams, [&](int32_t i) { return b.finished->is_finished[i] != 0; }) == b.beams;
}

__device__ bool finishes(const search &b, int32_t rank)
{
    return rank < b.beams && b.w->candidates[rank].ends;
}

__device__ void take_finished(const search &b, int32_t i, uint64_t key)
{
    const int32_t from = (int32_t)index_of(key), rank = from - b.beams;
    tfi_choice *choice = &b.choices[i];

    b.w->scores[i] = choice->finished_score = score_of(key);
    b.w->flags[i] = from < b.beams ? b.finished->is_finished[from] : (int8_t)finishes(b, rank);
    choice->finished_from = from < b.beams ? from : finishes(b, rank) ? -1 : -2;
    if (from < b.beams) return;
    const candidate *c = &b.w->candidates[rank];
    choice->finished_parent = c->beam;
    choice->finished_token = c->token;
    choice->finished_logprob = logprob(b, c);
}

__device__ void merge_finished(const search &b)
{
    const int32_t n = b.beams;
    const bool full = all_finished(b) && b.s->early_stopping == 1;
    const float factor = length_factor(b.s, b.length + 1 - b.s->prompt);

    for_all(n + b.count, [&](int32_t i) {
        float score;
        if (i < n) {
            score = b.finished->finished_scores[i];
        } else {
            score = b.w->candidates[i - n].score / factor;
            if (full) score += far_below;
            if (!b.finished->open) score += far_below;
            if (!finishes(b, i - n)) score += far_below;
        }
        b.w->keys[i] = low_first(score, (uint32_t)i);
    });
    rank_keys(b, n + b.count, n, [&](int32_t rank, uint64_t key) { take_finished(b, rank, key); });
    for_all(n, [&](int32_t i) {
        b.finished->finished_scores[i] = b.w->scores[i];
        b.finished->is_finished[i] = b.w->flags[i];
    });
}

/* ---- running beams ---- */

/* Who goes on in which array: the parent's own where no beam before has taken it, else one that nobody goes on with. */
__device__ void choose_targets(const search &b)
{
    int8_t *taken = b.w->flags;
    int32_t unused = 0;

    for (int32_t i = 0; i < b.beams; i++) taken[i] = 0;
    for (int32_t i = 0; i < b.beams; i++) taken[b.choices[i].parent] = 1;
    for (int32_t i = 0; i < b.beams; i++) {
        int32_t array = b.choices[i].parent;
        if (taken[array] == 2) {
            while (taken[unused] != 0) unused++;
            array = unused++;
        } else {
            taken[array] = 2;
        }
        b.w->targets[i] = b.w->tokens[array];
    }
}

__device__ void hand_over_tokens(const search &b)
{
    for_all(b.beams, [&](int32_t i) { b.w->tokens[i] = beam(b, i)->tokens; });
    if (threadIdx.x == 0) choose_targets(b);
    __syncthreads();
    for (int32_t i = 0; i < b.beams; i++) {
        const int32_t *from = b.w->tokens[b.choices[i].parent];
        int32_t *to = b.w->targets[i];
        for (int32_t k = threadIdx.x; from != to && k < b.length; k += DRAW_THREADS) to[k] = from[k];
    }
    __syncthreads();
}

__device__ void go_on(const search &b)
{
    for_all(b.count, [&](int32_t r) {
        const candidate *c = &b.w->candidates[r];
        b.w->keys[r] = low_first(c->score + (c->ends ? far_below : 0), (uint32_t)r);
    });
    rank_keys(b, b.count, b.beams, [&](int32_t i, uint64_t key) {
        const candidate *c = &b.w->candidates[index_of(key)];
        b.choices[i].token = c->token;
        b.choices[i].parent = c->beam;
        b.choices[i].score = score_of(key);
        b.choices[i].logprob = logprob(b, c);
    });
    hand_over_tokens(b);
    for_all(b.beams, [&](int32_t i) {
        tfi_slot *slot = beam(b, i);
        slot->tokens = b.w->targets[i];
        slot->tokens[b.length] = b.choices[i].token;
        slot->count = b.length + 1;
        slot->score = b.choices[i].score;
    });
}

__device__ bool can_improve(const search &b)
{
    const tfi_sampling *s = b.s;
    const bool to_the_end = s->early_stopping == 2 && s->length_penalty > 0;
    const int32_t drawn = to_the_end ? s->max_length - s->prompt : b.length + 1 - s->prompt;
    const float best = b.choices[0].score / length_factor(s, drawn);
    float worst = b.finished->finished_scores[0];

    for (int32_t i = 1; i < b.beams; i++) worst = fminf(worst, b.finished->finished_scores[i]);
    for (int32_t i = 0; i < b.beams; i++)
        if (best > (b.finished->is_finished[i] ? worst : far_below)) return true;
    return false;
}

__device__ bool is_over(const search &b)
{
    if (threadIdx.x == 0) b.r->open = b.finished->open = b.finished->open && can_improve(b);
    const bool full = all_finished(b) && b.s->early_stopping == 1;
    return !b.r->open || full || count_of(b.count, [&](int32_t r) { return b.w->candidates[r].ends != 0; }) == b.count;
}

__device__ void step(search *b)
{
    for_all(b->beams, [&](int32_t i) {
        tfi_choice choice = {};
        choice.token = -1;
        choice.parent = choice.finished_from = i;
        choice.stop = TFI_STOP_NUMERIC;
        b->choices[i] = choice;
    });
    if (!is_valid(b)) return;
    rank_candidates(b);
    sum_logits(*b);
    merge_finished(*b);
    go_on(*b);
    const int32_t stop = is_over(*b) ? TFI_STOP_BEAMS : TFI_STOP_NONE;
    for_all(b->beams, [&](int32_t i) { b->choices[i].stop = stop; });
}

__global__ void __launch_bounds__(DRAW_THREADS, 1) beam_step(tfi_draw_args a, const tfi_cuda_live *live, work *scratch)
{
    begin();
    __shared__ room r;
    const int64_t i = blockIdx.x;

    if (i >= live->draws) return;
    const tfi_slot *slot = &a.slots[a.draws[i].slot];
    const tfi_sampling *s = slot->sampling;
    if (s->num_beams < 2 || slot->sequence != 0 || s->completes) return;
    /* A request has two beams at least: no other has the same i / 2. */
    search b = {a.x,          a.logits,    a.slots, a.V, a.draws + i, a.choices + i, s, slot->beams, scratch + i / 2, &r,
                s->num_beams, slot->count, 0,       0};
    step(&b);
}

} // namespace

extern "C" int64_t tfi_cuda_beam_step_scratch(int64_t draws)
{
    return (draws + 1) / 2 * (int64_t)sizeof(work);
}

extern "C" tf_status tfi_cuda_beam_step(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    if (a->count == 0) return TF_STATUS_OK;
    return start(l, "BEAM_STEP", beam_step, (unsigned)a->count, DRAW_THREADS, 0, *a, l->live, (work *)l->scratch);
}
