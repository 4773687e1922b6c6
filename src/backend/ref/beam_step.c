/* BEAM_STEP, plain C: one step of the beam search of transformers 5 (GenerationMixin._beam_search and its helpers), in its
 * order and arithmetic of float. A request is one worker's work. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/ref/best.h"
#include "backend/ref/process.h"
#include "backend/ref/ref.h"
#include "backend/ref/softmax.h"
#include "backend/rows.h"

enum { BEAMS_MAX = TFI_BEAM_CANDIDATES_MAX / 2 };
static const float far_below = -1e9f; /* what transformers gives to sequences that are out of the race */

/* A beam gone on by a token; they are ranked, best first. */
typedef struct candidate {
    float score; /* sum of log-probabilities */
    int32_t beam, token;
    int32_t ends; /* nothing can follow */
} candidate;

typedef struct work {
    tfi_ranked ranks[TFI_BEAM_CANDIDATES_MAX];
    candidate candidates[TFI_BEAM_CANDIDATES_MAX];
    int32_t *tokens[BEAMS_MAX];
    double log_sums[BEAMS_MAX];
    float scores[BEAMS_MAX];
    int8_t flags[BEAMS_MAX];
} work;

/* A request with its beams and what this step knows of them. */
typedef struct search {
    const tfi_draw_args *a;
    const tfi_draw *draws; /* [beams] */
    tfi_choice *choices;   /* [beams] */
    const tfi_sampling *s;
    tfi_beams *finished;
    work *w;
    int32_t beams, length; /* tokens before this step */
    int32_t count;         /* of candidates */
} search;

static tfi_slot *beam(const search *b, int32_t i)
{
    return &b->a->slots[b->draws[i].slot];
}

static const float *row(const search *b, const float *rows, int32_t i)
{
    return rows + b->draws[i].row * b->a->V;
}

/* Beams that have just read their prompt share a row. */
static int is_row_of_last(const search *b, int32_t i)
{
    return i > 0 && b->draws[i].row == b->draws[i - 1].row;
}

static int is_valid(const search *b)
{
    for (int32_t i = 0; i < b->beams; i++) {
        if (is_row_of_last(b, i)) continue;
        if (!b->s->remove_invalid_values && tfi_row_invalid(row(b, b->a->logits, i), b->a->V)) return 0;
        if (tfi_row_invalid(row(b, b->a->x, i), b->a->V)) return 0;
    }
    return 1;
}

/* ---- candidates ---- */

/* Without replacement, as torch.multinomial draws: the largest of p / e win, e of the exponential distribution; in logarithms.
 * Each candidate has a random number of its own. */
static void race(const search *b, tfi_best *best)
{
    const int64_t V = b->a->V;
    const uint32_t step = (uint32_t)(b->length - b->s->prompt);
    float max = -INFINITY;

    for (int32_t i = 0; i < b->beams; i++) max = fmaxf(max, tfi_row_max(row(b, b->a->x, i), V) + beam(b, i)->score);
    for (int32_t i = 0; i < b->beams; i++) {
        const float *x = row(b, b->a->x, i), sum = beam(b, i)->score;
        for (int64_t k = 0; k < V; k++) {
            const int32_t index = i * (int32_t)V + (int32_t)k;
            if (!(x[k] > -INFINITY)) continue;
            const double e = -log1p(-tfi_uniform(b->s->seed, step, (uint32_t)index, 1));
            tfi_best_offer(best, (float)((double)(x[k] + sum) - (double)max - log(e)), index);
        }
    }
    for (int32_t i = 0; i < b->beams && best->count < best->limit; i++) { /* too few: impossible ones fill the places */
        for (int64_t k = 0; k < V && best->count < best->limit; k++)
            if (!(row(b, b->a->x, i)[k] > -INFINITY)) tfi_best_offer(best, -INFINITY, i * (int32_t)V + (int32_t)k);
    }
}

static int ends(const search *b, int32_t i, int32_t token)
{
    const tfi_sampling *s = b->s;
    return tfi_is_eos(s, token) || b->length + 1 >= s->max_length ||
           (s->completes && s->completes(s->completes_user, i, token));
}

static void rank_candidates(search *b)
{
    const int64_t V = b->a->V, all = b->beams * V, wanted = tfi_beam_candidates(b->s);
    tfi_best best = {.heap = b->w->ranks, .limit = wanted < all ? wanted : all};

    if (b->s->do_sample) {
        race(b, &best);
    } else {
        for (int32_t i = 0; i < b->beams; i++)
            tfi_best_offer_row(&best, row(b, b->a->x, i), V, beam(b, i)->score, i * (int32_t)V);
    }
    tfi_best_sort(&best);
    b->count = (int32_t)best.count;
    for (int32_t r = 0; r < b->count; r++) {
        candidate *c = &b->w->candidates[r];
        c->beam = best.heap[r].index / (int32_t)V;
        c->token = best.heap[r].index % (int32_t)V;
        c->score = row(b, b->a->x, c->beam)[c->token] + beam(b, c->beam)->score;
        c->ends = ends(b, c->beam, c->token);
    }
}

/* The model's own log-probability of a candidate's token. */
static void sum_logits(const search *b)
{
    if (!b->s->logprobs) return;
    for (int32_t i = 0; i < b->beams; i++)
        b->w->log_sums[i] = is_row_of_last(b, i) ? b->w->log_sums[i - 1]
                                                 : tfi_row_log_sum_exp(row(b, b->a->logits, i), b->a->V);
}

static float logprob(const search *b, const candidate *c)
{
    return b->s->logprobs ? (float)((double)row(b, b->a->logits, c->beam)[c->token] - b->w->log_sums[c->beam]) : 0;
}

/* ---- finished sequences ---- */

static float length_factor(const tfi_sampling *s, int32_t drawn)
{
    return (float)pow(drawn, (double)s->length_penalty);
}

static int all_finished(const search *b)
{
    for (int32_t i = 0; i < b->beams; i++)
        if (!b->finished->is_finished[i]) return 0;
    return 1;
}

/* Only one of the first may finish: the others are there so that enough beams are left to go on. */
static int finishes(const search *b, int32_t rank)
{
    return rank < b->beams && b->w->candidates[rank].ends;
}

/* _update_finished_beams: the best of those finished before and those that finish now. */
static void merge_finished(const search *b)
{
    const int32_t n = b->beams, full = b->s->early_stopping == 1 && all_finished(b);
    const float factor = length_factor(b->s, b->length + 1 - b->s->prompt);
    tfi_best best = {.heap = b->w->ranks, .limit = n};

    for (int32_t i = 0; i < n; i++) tfi_best_offer(&best, b->finished->finished_scores[i], i);
    for (int32_t r = 0; r < b->count; r++) {
        float score = b->w->candidates[r].score / factor;
        if (full) score += far_below;
        if (!b->finished->open) score += far_below;
        if (!finishes(b, r)) score += far_below;
        tfi_best_offer(&best, score, n + r);
    }
    tfi_best_sort(&best);
    for (int32_t i = 0; i < n; i++) {
        const int32_t from = best.heap[i].index, rank = from - n;
        tfi_choice *choice = &b->choices[i];

        b->w->scores[i] = choice->finished_score = -best.heap[i].key;
        b->w->flags[i] = from < n ? b->finished->is_finished[from] : (int8_t)finishes(b, rank);
        choice->finished_from = from < n ? from : finishes(b, rank) ? -1 : -2;
        if (from < n) continue;
        choice->finished_parent = b->w->candidates[rank].beam;
        choice->finished_token = b->w->candidates[rank].token;
        choice->finished_logprob = logprob(b, &b->w->candidates[rank]);
    }
    memcpy(b->finished->finished_scores, b->w->scores, (size_t)n * sizeof *b->w->scores);
    memcpy(b->finished->is_finished, b->w->flags, (size_t)n);
}

/* ---- running beams ---- */

/* Each beam gets its parent's tokens: the parent's own array where no beam before has taken it, else a copy in one that nobody
 * goes on with. */
static void hand_over_tokens(const search *b)
{
    const int32_t n = b->beams;
    int8_t *taken = b->w->flags;
    int32_t unused = 0;

    for (int32_t i = 0; i < n; i++) {
        b->w->tokens[i] = beam(b, i)->tokens;
        taken[i] = 0;
    }
    for (int32_t i = 0; i < n; i++) taken[b->choices[i].parent] = 1;
    for (int32_t i = 0; i < n; i++) {
        const int32_t parent = b->choices[i].parent;
        int32_t *tokens = b->w->tokens[parent];
        if (taken[parent] == 2) {
            while (taken[unused] != 0) unused++;
            tokens = memcpy(b->w->tokens[unused++], tokens, (size_t)b->length * sizeof *tokens);
        }
        taken[parent] = 2;
        beam(b, i)->tokens = tokens;
    }
}

/* _get_running_beams_for_next_iteration: the best that do not end. */
static void go_on(const search *b)
{
    tfi_best best = {.heap = b->w->ranks, .limit = b->beams};

    for (int32_t r = 0; r < b->count; r++)
        tfi_best_offer(&best, b->w->candidates[r].score + (b->w->candidates[r].ends ? far_below : 0), r);
    tfi_best_sort(&best);
    for (int32_t i = 0; i < b->beams; i++) {
        const candidate *c = &b->w->candidates[best.heap[i].index];
        b->choices[i].token = c->token;
        b->choices[i].parent = c->beam;
        b->choices[i].score = -best.heap[i].key;
        b->choices[i].logprob = logprob(b, c);
    }
    hand_over_tokens(b);
    for (int32_t i = 0; i < b->beams; i++) {
        tfi_slot *slot = beam(b, i);
        slot->tokens[b->length] = b->choices[i].token;
        slot->count = b->length + 1;
        slot->score = b->choices[i].score;
        slot->parent = b->choices[i].parent;
    }
}

/* _check_early_stop_heuristic: whether the best running beam may still be better than the worst finished one. */
static int can_improve(const search *b)
{
    const tfi_sampling *s = b->s;
    const int to_the_end = s->early_stopping == 2 && s->length_penalty > 0;
    const int32_t drawn = to_the_end ? s->max_length - s->prompt : b->length + 1 - s->prompt;
    const float best = b->choices[0].score / length_factor(s, drawn);
    float worst = b->finished->finished_scores[0];

    for (int32_t i = 1; i < b->beams; i++) worst = fminf(worst, b->finished->finished_scores[i]);
    for (int32_t i = 0; i < b->beams; i++)
        if (best > (b->finished->is_finished[i] ? worst : far_below)) return 1;
    return 0;
}

static int is_over(const search *b)
{
    int32_t ended = 0;

    if (!b->finished->open || (b->s->early_stopping == 1 && all_finished(b))) return 1;
    for (int32_t r = 0; r < b->count; r++) ended += b->w->candidates[r].ends;
    return ended == b->count;
}

static void step(search *b)
{
    for (int32_t i = 0; i < b->beams; i++)
        b->choices[i] = (tfi_choice){.token = -1, .parent = i, .stop = TFI_STOP_NUMERIC, .finished_from = i};
    if (!is_valid(b)) return;
    rank_candidates(b);
    sum_logits(b);
    merge_finished(b);
    go_on(b);
    b->finished->open = b->finished->open && can_improve(b);
    const int over = is_over(b);
    for (int32_t i = 0; i < b->beams; i++) b->choices[i].stop = over ? TFI_STOP_BEAMS : TFI_STOP_NONE;
}

static void beam_step(const void *args, const tfi_worker *w)
{
    const tfi_draw_args *a = args;
    int64_t turn = 0;

    for (int64_t i = 0; i < a->count;) {
        const tfi_slot *slot = &a->slots[a->draws[i].slot];
        const int32_t beams = slot->sampling->num_beams;

        if (beams > 1 && turn++ % w->count == w->index) {
            search b = {a, a->draws + i, a->choices + i, slot->sampling, slot->beams, w->scratch, beams, slot->count, 0};
            assert(tfi_beam_candidates(b.s) <= TFI_BEAM_CANDIDATES_MAX && i + beams <= a->count);
            step(&b);
        }
        i += beams > 1 ? beams : 1;
    }
}

int64_t tfi_ref_beam_step_scratch(void)
{
    return sizeof(work);
}

tfi_host_fn tfi_ref_beam_step(tfi_op_types t)
{
    return tfi_is_f32(t) ? beam_step : NULL;
}
