/* BEAM_STEP: one step of beam search for each request that has beams; what it computes: src/backend/ref/beam_step.c, whose
 * names these are. Not requests whose stop strings ask a function of the host (tfi_sampling.completes): for those the backend
 * does the step on the host, and this one passes them by.
 *
 * Shapes    x, logits [S, V] fp32, draws, choices [count]
 * Parallel  a team a request. Its beams * V continuations, one beam behind the other, are split evenly. As many as are wanted
 *           reach the best of that many warps: only threads that have seen one as good look again, and list what reaches it;
 *           few more than the 2 * beams that are wanted. From there on the first member is alone, and ranks by counting who
 *           is better
 * Needs     scratch of WORK bytes for each request; few beams get by with shared memory
 * Floor     8*V bytes a beam from L2, raw logits and processed ones; V=32128, 4 beams: 1 MB by 8 multiprocessors at about 64
 *           bytes a clock: 1.2 us, and two gathers; then some thirty steps of one block, with a read of L2 in each fourth: 5 us
 * Measured  15.7 us on H200, about 4 of them for the look at all, 4 for the list, 7 for the steps of one block; 16
 *           requests 22.6. One block a request took 70 us */
#include "select.cuh"

namespace
{

enum { LISTED_MAX = TFI_BEAM_CANDIDATES_MAX, BEAMS_MAX = TFI_BEAM_CANDIDATES_MAX / 2, LISTED_FEW = 128, BEAMS_FEW = 32 };

struct candidate {
    float score;
    int32_t beam, token;
    int32_t ends;
};

/* A beam, and the entry of the finished list with its number, before and after the step. */
struct running {
    tfi_slot *slot;
    int32_t *tokens, *target;
    double log_sum; /* of its row of logits */
    float finished_score, merged_score, score;
    int32_t parent, token;
    int8_t is_finished, is_merged, taken;
};

struct work {
    int32_t room;          /* for as many in the list */
    uint64_t *keys;        /* [room + beams] what is being ranked */
    running *beams;        /* [beams] */
    candidate *candidates; /* [room] */
};

__host__ __device__ constexpr int64_t work_bytes(int64_t listed, int64_t beams)
{
    const int64_t each = sizeof(uint64_t) + sizeof(candidate), each_beam = sizeof(uint64_t) + sizeof(running);
    return listed * each + beams * each_beam;
}

enum { WORK = work_bytes(LISTED_MAX, BEAMS_MAX), WORK_FEW = work_bytes(LISTED_FEW, BEAMS_FEW) };

/* Shared memory of each member. */
struct room {
    team_slots slots;
    bins b;
    ulonglong2 few[WORK_FEW / sizeof(ulonglong2)]; /* the first member's */
    tfi_sampling s;
    uint64_t low;
    int count, too_many;
};

struct search {
    const float *x, *logits;
    tfi_slot *slots;
    int64_t V;
    const tfi_draw *draws;
    tfi_choice *choices;
    const tfi_sampling *s;
    tfi_beams *finished;
    team *t;
    room *r;
    work w;
    int32_t beams, length, count;
    bool open;        /* a finished sequence can still be improved */
    uint64_t largest; /* of this thread's continuations */
    float max;        /* of all, for the race */
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
    for (int32_t i = threadIdx.x; i < count; i += (int32_t)blockDim.x) visit(i);
    __syncthreads();
}

template <typename Is>
__device__ int32_t count_of(int32_t count, Is is)
{
    int32_t n = 0;
    for (int32_t i = 0; i < count; i += (int32_t)blockDim.x)
        n += __syncthreads_count(i + (int32_t)threadIdx.x < count && is(i + (int32_t)threadIdx.x));
    return n;
}

/* take(rank, key) for the `wanted` largest of w->keys. */
template <typename Take>
__device__ void rank_keys(const search &b, int32_t count, int32_t wanted, Take take)
{
    const uint64_t *keys = b.w.keys;

    for_all(count, [&](int32_t i) {
        const uint64_t own = keys[i];
        int32_t rank = 0;
        for (int32_t k = 0; k < count; k++) rank += keys[k] > own;
        if (rank < wanted) take(rank, own);
    });
}

/* ---- candidates ---- */

/* visit(beam, begin, count) for this member's part of all rows. */
template <typename Visit>
__device__ void for_own_rows(const search &b, Visit visit)
{
    const part p = own_part(*b.t, b.beams * b.V);

    for (int64_t i = (uint32_t)p.begin / (uint32_t)b.V; i * b.V < p.begin + p.count; i++) {
        const int64_t begin = max(p.begin - i * b.V, (int64_t)0);
        visit((int32_t)i, begin, min(p.begin + p.count - i * b.V, b.V) - begin);
    }
}

/* visit(index, x, score) for this member's continuations, always the same by a thread. */
template <typename Visit>
__device__ void for_continuations(const search &b, Visit visit)
{
    for_own_rows(b, [&](int32_t i, int64_t begin, int64_t count) {
        const float sum = __ldcg(&beam(b, i)->score);
        const uint32_t base = (uint32_t)i * (uint32_t)b.V + (uint32_t)begin;
        for_row(row(b, b.x, i) + begin, count, [&](uint32_t k, float v) { visit(base + k, v, v + sum); });
    });
}

/* The place of a token in the race of those that are drawn without replacement. */
__device__ __noinline__ float race(uint64_t seed, uint32_t step, float max, float score, uint32_t index)
{
    const double e = -log1p(-uniform_of(seed, step, index, 1));
    return (float)((double)score - (double)max - log(e));
}

__device__ uint64_t key_of(const search &b, uint32_t index, float x, float score)
{
    const uint32_t step = (uint32_t)(b.length - b.s->prompt);

    if (!b.s->do_sample) return low_first(score, index);
    return low_first(x > -CUDART_INF_F ? race(b.s->seed, step, b.max, score, index) : -CUDART_INF_F, index);
}

/* Finds each thread's largest, and gives each warp's; NULL: there is what must not be. */
__device__ const ulonglong2 *look(search *b)
{
    const uint32_t none = ~(uint32_t)0;
    bool invalid = false;
    float best = -CUDART_INF_F;
    uint32_t at = none;

    for_own_rows(*b, [&](int32_t i, int64_t begin, int64_t count) {
        const float sum = __ldcg(&beam(*b, i)->score);
        const uint32_t base = (uint32_t)i * (uint32_t)b->V + (uint32_t)begin;
        for_row(row(*b, b->x, i) + begin, count, [&](uint32_t k, float v) {
            const float score = v + sum;
            invalid |= is_invalid(v);
            if (score > best || at == none) {
                best = score;
                at = base + k;
            }
        });
        if (b->s->remove_invalid_values) return;
        for_row(row(*b, b->logits, i) + begin, count, [&](uint32_t, float v) { invalid |= is_invalid(v); });
    });
    b->largest = at == none ? 0 : low_first(best, at);
    const ulonglong2 *all = gather(*b->t, warp_most(b->largest), __any_sync(0xffffffffu, invalid));
    uint64_t most = 0;
    invalid = false;
    for (unsigned w = threadIdx.x % WARP; w < team_warps(*b->t); w += WARP) {
        most = max(most, (uint64_t)all[w].x);
        invalid |= all[w].y != 0;
    }
    if (__any_sync(0xffffffffu, invalid)) return NULL;
    if (!b->s->do_sample) return all;
    b->max = score_of(warp_most(most));
    b->largest = 0;
    for_continuations(*b,
                      [&](uint32_t index, float x, float score) { b->largest = max(b->largest, key_of(*b, index, x, score)); });
    return gather(*b->t, warp_most(b->largest), 0);
}

/* What the best `wanted` warps reach; 0 where there are not as many. */
__device__ uint64_t reached(const search &b, const ulonglong2 *all, int32_t wanted)
{
    const int32_t count = (int32_t)team_warps(*b.t), i = (int32_t)threadIdx.x;

    if (i == 0) b.r->low = 0;
    __syncthreads();
    if (i < count && wanted <= count) {
        const uint64_t own = all[i].x;
        int32_t rank = 0;
        for (int32_t k = 0; k < count; k++) rank += all[k].x > own;
        if (rank == wanted - 1) b.r->low = own;
    }
    __syncthreads();
    return b.r->low;
}

/* The continuations that reach `low`, with the first member; whether there was room for them. */
__device__ bool list_those(const search &b, uint64_t low)
{
    int *count = of_member(&b.r->count, 0);

    if (b.largest >= low) {
        for_continuations(b, [&](uint32_t index, float x, float score) {
            const uint64_t key = key_of(b, index, x, score);
            if (key < low) return;
            const int at = atomicAdd(count, 1);
            if (at < b.w.room) b.w.keys[at] = key;
            else if (at == b.w.room)
                for (unsigned m = 0; m < b.t->size; m++) *of_member(&b.r->too_many, m) = 1;
        });
    }
    team_sync();
    return !b.r->too_many;
}

/* The best continuations, and a few more. */
__device__ void list_best(const search &b, const ulonglong2 *all, int32_t wanted)
{
    if (list_those(b, b.beams * b.V > b.w.room ? reached(b, all, wanted) : 0)) return;
    __syncthreads();
    if (threadIdx.x == 0) b.r->count = b.r->too_many = 0;
    (void)list_those(b, select_last(*b.t, &b.r->b, 0, ~(uint64_t)0, {(uint64_t)wanted, 0}, [&](auto offer) {
                         for_continuations(
                             b, [&](uint32_t index, float x, float score) { offer(key_of(b, index, x, score), weightless); });
                     }));
}

__device__ bool ends(const search &b, int32_t token)
{
    for (int32_t i = 0; i < b.s->eos_count; i++)
        if (b.s->eos[i] == token) return true;
    return b.length + 1 >= b.s->max_length;
}

/* tfi_beam_candidates() */
__device__ int64_t wanted_of(const tfi_sampling &s)
{
    return (s.eos_count > 1 ? 1 + (int64_t)s.eos_count : 2) * s.num_beams;
}

__device__ void rank_candidates(const search &b)
{
    rank_keys(b, b.r->count, b.count, [&](int32_t rank, uint64_t key) {
        candidate c;
        c.beam = (int32_t)(index_of(key) / (uint32_t)b.V);
        c.token = (int32_t)(index_of(key) % (uint32_t)b.V);
        c.score = b.s->do_sample ? row(b, b.x, c.beam)[c.token] + beam(b, c.beam)->score : score_of(key);
        c.ends = ends(b, c.token);
        b.w.candidates[rank] = c;
    });
}

__device__ void sum_logits(const search &b)
{
    double sum = 0;

    for (int32_t i = 0; b.s->logprobs && i < b.beams; i++) {
        if (!is_row_of_last(b, i)) sum = log_sum_exp(*b.t, row(b, b.logits, i), own_part(*b.t, b.V));
        if (b.t->member == 0 && threadIdx.x == 0) b.w.beams[i].log_sum = sum;
    }
    __syncthreads();
}

__device__ float logprob(const search &b, const candidate *c)
{
    return b.s->logprobs ? (float)((double)row(b, b.logits, c->beam)[c->token] - b.w.beams[c->beam].log_sum) : 0;
}

/* ---- finished sequences ---- */

__device__ float length_factor(const tfi_sampling *s, int32_t drawn)
{
    if (s->length_penalty == 1) return (float)drawn; /* for most, and a power takes its time */
    return (float)pow((double)drawn, (double)s->length_penalty);
}

__device__ bool all_finished(const search &b)
{
    return count_of(b.beams, [&](int32_t i) { return b.w.beams[i].is_finished != 0; }) == b.beams;
}

__device__ bool finishes(const search &b, int32_t rank)
{
    return rank < b.beams && b.w.candidates[rank].ends;
}

__device__ void take_finished(const search &b, int32_t i, uint64_t key)
{
    const int32_t from = (int32_t)index_of(key), rank = from - b.beams;
    running *r = &b.w.beams[i];
    tfi_choice *choice = &b.choices[i];

    r->merged_score = choice->finished_score = score_of(key);
    r->is_merged = from < b.beams ? b.w.beams[from].is_finished : (int8_t)finishes(b, rank);
    choice->finished_from = from < b.beams ? from : finishes(b, rank) ? -1 : -2;
    if (from < b.beams) return;
    const candidate *c = &b.w.candidates[rank];
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
            score = b.w.beams[i].finished_score;
        } else {
            score = b.w.candidates[i - n].score / factor;
            if (full) score += far_below;
            if (!b.open) score += far_below;
            if (!finishes(b, i - n)) score += far_below;
        }
        b.w.keys[i] = low_first(score, (uint32_t)i);
    });
    rank_keys(b, n + b.count, n, [&](int32_t rank, uint64_t key) { take_finished(b, rank, key); });
    for_all(n, [&](int32_t i) {
        running *r = &b.w.beams[i];
        b.finished->finished_scores[i] = r->finished_score = r->merged_score;
        b.finished->is_finished[i] = r->is_finished = r->is_merged;
    });
}

/* ---- running beams ---- */

/* Who goes on in which array: the parent's own where no beam before has taken it, else one that nobody goes on with. */
__device__ void choose_targets(const search &b)
{
    running *beams = b.w.beams;
    int32_t unused = 0;

    for (int32_t i = 0; i < b.beams; i++) beams[i].taken = 0;
    for (int32_t i = 0; i < b.beams; i++) beams[beams[i].parent].taken = 1;
    for (int32_t i = 0; i < b.beams; i++) {
        int32_t array = beams[i].parent;
        if (beams[array].taken == 2) {
            while (beams[unused].taken != 0) unused++;
            array = unused++;
        } else {
            beams[array].taken = 2;
        }
        beams[i].target = beams[array].tokens;
    }
}

__device__ void hand_over_tokens(const search &b)
{
    if (threadIdx.x == 0) choose_targets(b);
    __syncthreads();
    for (int32_t i = 0; i < b.beams; i++) {
        const int32_t *from = b.w.beams[b.w.beams[i].parent].tokens;
        int32_t *to = b.w.beams[i].target;
        for (int32_t k = threadIdx.x; from != to && k < b.length; k += (int32_t)blockDim.x) to[k] = from[k];
    }
    __syncthreads();
}

__device__ void go_on(const search &b)
{
    for_all(b.count, [&](int32_t r) {
        const candidate *c = &b.w.candidates[r];
        b.w.keys[r] = low_first(c->score + (c->ends ? far_below : 0), (uint32_t)r);
    });
    rank_keys(b, b.count, b.beams, [&](int32_t i, uint64_t key) {
        const candidate *c = &b.w.candidates[index_of(key)];
        running *r = &b.w.beams[i];
        b.choices[i].token = r->token = c->token;
        b.choices[i].parent = r->parent = c->beam;
        b.choices[i].score = r->score = score_of(key);
        b.choices[i].logprob = logprob(b, c);
    });
    hand_over_tokens(b);
    for_all(b.beams, [&](int32_t i) {
        const running *r = &b.w.beams[i];
        r->slot->tokens = r->target;
        r->target[b.length] = r->token;
        r->slot->count = b.length + 1;
        r->slot->score = r->score;
        r->slot->parent = r->parent;
    });
}

__device__ bool can_improve(const search &b)
{
    const tfi_sampling *s = b.s;
    const bool to_the_end = s->early_stopping == 2 && s->length_penalty > 0;
    const int32_t drawn = to_the_end ? s->max_length - s->prompt : b.length + 1 - s->prompt;
    const float best = b.w.beams[0].score / length_factor(s, drawn);
    float worst = b.w.beams[0].finished_score;

    for (int32_t i = 1; i < b.beams; i++) worst = fminf(worst, b.w.beams[i].finished_score);
    for (int32_t i = 0; i < b.beams; i++)
        if (best > (b.w.beams[i].is_finished ? worst : far_below)) return true;
    return false;
}

__device__ bool is_over(const search &b)
{
    const bool open = b.open && can_improve(b), full = all_finished(b) && b.s->early_stopping == 1;

    if (threadIdx.x == 0) b.finished->open = open;
    return !open || full || count_of(b.count, [&](int32_t r) { return b.w.candidates[r].ends != 0; }) == b.count;
}

/* What is known of the beams; no choices yet. */
__device__ void read_beams(search *b)
{
    b->open = b->finished->open;
    for_all(b->beams, [&](int32_t i) {
        running *r = &b->w.beams[i];
        tfi_choice choice = {};
        r->slot = beam(*b, i);
        r->tokens = r->slot->tokens;
        r->finished_score = b->finished->finished_scores[i];
        r->is_finished = b->finished->is_finished[i];
        choice.token = -1;
        choice.parent = choice.finished_from = i;
        choice.stop = TFI_STOP_NUMERIC;
        b->choices[i] = choice;
    });
}

__device__ void step(search *b)
{
    const bool is_first = b->t->member == 0;
    const int64_t wanted = wanted_of(*b->s);

    b->count = (int32_t)min(wanted, b->beams * b->V);
    if (is_first) read_beams(b);
    const ulonglong2 *all = look(b);
    if (!all) return;
    list_best(*b, all, b->count);
    sum_logits(*b);
    if (!is_first) return;
    rank_candidates(*b);
    merge_finished(*b);
    go_on(*b);
    const int32_t stop = is_over(*b) ? TFI_STOP_BEAMS : TFI_STOP_NONE;
    for_all(b->beams, [&](int32_t i) { b->choices[i].stop = stop; });
}

/* In the first member's shared memory, or in the request's scratch. */
__device__ work work_of(const tfi_sampling &s, room *r, char *scratch)
{
    const bool few = 2 * wanted_of(s) <= LISTED_FEW && s.num_beams <= BEAMS_FEW;
    const int64_t beams = few ? BEAMS_FEW : BEAMS_MAX;
    work w;

    w.room = few ? LISTED_FEW : LISTED_MAX;
    w.keys = few ? (uint64_t *)of_member(r->few, 0) : (uint64_t *)scratch;
    w.beams = (running *)(w.keys + w.room + beams);
    w.candidates = (candidate *)(w.beams + beams);
    return w;
}

__global__ void __launch_bounds__(TEAM_THREADS) beam_step(tfi_draw_args a, const tfi_cuda_live *live, char *scratch)
{
    __shared__ room r;
    follow();
    if (threadIdx.x == 0) r.count = r.too_many = 0;
    team t = join(&r.slots);
    const int64_t i = team_index(t);
    const tfi_slot *slot = i < live->draws ? &a.slots[a.draws[i].slot] : NULL;
    const bool begins = slot && slot->sampling->num_beams > 1 && slot->sequence == 0 && !slot->sampling->completes;
    if (begins) copy_settings(slot->sampling, &r.s);
    wait_for_results();
    if (!begins) return;
    /* A request has two beams at least: no other has the same i / 2. */
    search b = {};
    b.x = a.x;
    b.logits = a.logits;
    b.slots = a.slots;
    b.V = a.V;
    b.draws = a.draws + i;
    b.choices = a.choices + i;
    b.s = &r.s;
    b.finished = slot->beams;
    b.t = &t;
    b.r = &r;
    b.w = work_of(r.s, &r, scratch + i / 2 * WORK);
    b.beams = r.s.num_beams;
    b.length = __ldcg(&slot->count); /* not what was there before the wait */
    step(&b);
}

} // namespace

extern "C" int64_t tfi_cuda_beam_step_scratch(int64_t draws)
{
    return (draws + 1) / 2 * WORK;
}

extern "C" tf_status tfi_cuda_beam_step(const tfi_cuda_launch *l, const tfi_draw_args *a)
{
    if (a->count == 0) return TF_STATUS_OK;
    return start_teams(l, "BEAM_STEP", beam_step, a->count, team_size(l, a->count, 2), 0, *a, l->live, (char *)l->scratch);
}
