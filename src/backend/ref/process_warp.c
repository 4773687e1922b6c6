/* The processors of the second stage, which transformers applies when it samples (renormalize_logits always), in its order.
 * Named after its classes.
 *
 * All but temperature take ids away. They work on a list of the ids that are left, which is short after the first of them, and
 * not sorted: a heap gives the best ones in order, as many as are asked for. */
#include <math.h>

#include "backend/ref/best.h"
#include "backend/ref/process.h"
#include "backend/ref/ref.h"
#include "backend/ref/softmax.h"

/* The ids that are left, ascending, and the sum of exp(score - max) over them. */
typedef struct survivors {
    float *scores; /* [n] */
    int32_t *ids;  /* [n] */
    tfi_ranked *heap;
    int64_t n;
    int64_t keep; /* as many are always left */
    float max;
} survivors;

static double sum_of(const survivors *l)
{
    return tfi_row_sum_exp(l->scores, l->n, l->max);
}

static double weight(const survivors *l, int64_t i)
{
    return exp((double)l->scores[i] - (double)l->max);
}

static void keep_one(survivors *l, int64_t *n, int64_t i)
{
    l->scores[*n] = l->scores[i];
    l->ids[(*n)++] = l->ids[i];
}

/* Of a list cut at a score, what is at least that. */
static void keep_from(survivors *l, float score)
{
    int64_t n = 0;

    for (int64_t i = 0; i < l->n; i++)
        if (l->scores[i] >= score) keep_one(l, &n, i);
    l->n = n;
}

/* The k best scores: best first in the heap. Returns how many there are. */
static int64_t rank(const survivors *l, int64_t k)
{
    tfi_best best = {.heap = l->heap, .limit = k < l->n ? k : l->n};

    tfi_best_offer_row(&best, l->scores, l->n, 0, 0);
    tfi_best_sort(&best);
    return best.count;
}

/* The score of the k-th best. */
static float score_of_rank(const survivors *l, int64_t k)
{
    return k <= 1 ? l->max : -l->heap[rank(l, k) - 1].key;
}

/* Of equal scores at the cut, those with the lower index. */
static void keep_ranked(survivors *l, int64_t count)
{
    const tfi_ranked last = l->heap[count - 1];
    int64_t n = 0;

    for (int64_t i = 0; i < l->n; i++)
        if (-l->scores[i] < last.key || (-l->scores[i] == last.key && i <= last.index)) keep_one(l, &n, i);
    l->n = n;
}

/* TopHLogitsWarper: the best, until their part of the entropy of the 100 best exceeds top_h of it. */
static void top_h(survivors *l, float top_h)
{
    enum { TOP = 100 };
    const int64_t count = rank(l, TOP);
    double entropy[TOP], sum = 0, total = 0, running = 0;
    int64_t kept = 1;

    for (int64_t i = 0; i < count; i++) sum += weight(l, l->heap[i].index);
    for (int64_t i = 0; i < count; i++) {
        const double p = weight(l, l->heap[i].index) / sum;
        entropy[i] = (float)p > 0 ? -p * log(p) : INFINITY; /* which is never kept */
        total += (float)p > 0 ? entropy[i] : 0;
    }
    for (int64_t i = 0; i < count; i++) {
        running += entropy[i];
        if (i > 0 && running > total * (double)top_h) break;
        kept = i + 1;
    }
    keep_ranked(l, kept);
}

/* TopKLogitsWarper; equal scores at the cut stay together. */
static void top_k(survivors *l, int64_t k)
{
    keep_from(l, score_of_rank(l, k));
}

/* TopPLogitsWarper: takes away the least probable while their sum is at most 1 - top_p; of equal ones the lower id goes first.
 * Those below an n-th of it each need not be looked at: all of them together are too few. */
static void top_p(survivors *l, float top_p)
{
    const double sum = sum_of(l), out = (1 - (double)top_p) * sum;
    const float low = l->keep > 1 ? -INFINITY : l->max + (float)log(out / (double)l->n) - 1e-3f;
    tfi_ranked cut = {INFINITY, 0};
    double above = 0;
    int64_t n = 0, kept = 0, left = 0;

    for (int64_t i = 0; i < l->n; i++) {
        l->heap[n] = (tfi_ranked){l->scores[i], (int32_t)i};
        n += l->scores[i] >= low;
    }
    tfi_heap_make(l->heap, n);
    for (; n > 0 && (kept < l->keep || sum - above > out); kept++) {
        cut = tfi_heap_pop(l->heap, &n);
        above += weight(l, cut.index);
    }
    for (int64_t i = 0; i < l->n; i++)
        if (l->scores[i] > cut.key || (l->scores[i] == cut.key && i >= cut.index)) keep_one(l, &left, i);
    l->n = left;
}

/* What has at least `least` of the best one's probability, and the best `keep`. */
static void min_p(survivors *l, float least)
{
    const int64_t count = l->keep > 1 ? rank(l, l->keep) : 0;
    const tfi_ranked last = count > 0 ? l->heap[count - 1] : (tfi_ranked){-l->max, 0};
    int64_t n = 0;

    for (int64_t i = 0; i < l->n; i++) {
        const int is_best = -l->scores[i] < last.key || (-l->scores[i] == last.key && i <= last.index);
        if (is_best || weight(l, i) >= (double)least) keep_one(l, &n, i);
    }
    l->n = n;
}

static double entropy_of(const survivors *l, double sum)
{
    double entropy = 0;

    for (int64_t i = 0; i < l->n; i++) {
        const double w = weight(l, i);
        if (w > 0) entropy += w * (log(sum) - ((double)l->scores[i] - (double)l->max));
    }
    return entropy / sum;
}

/* How far an id's surprise is from what is expected; in float, where different surprises may become equal. */
static float surprise(const survivors *l, int64_t i, float log_sum, float entropy)
{
    return fabsf(-(l->scores[i] - l->max - log_sum) - entropy);
}

/* TypicalLogitsWarper: those of the most usual surprise, until their probabilities reach `mass`. */
static void typical(survivors *l, float mass)
{
    const double sum = sum_of(l);
    const float log_sum = (float)log(sum), entropy = (float)entropy_of(l, sum);
    tfi_ranked last = {0, 0};
    double running = 0;
    float cut = INFINITY;
    int64_t n = l->n, kept = 0;

    for (int64_t i = 0; i < n; i++) l->heap[i] = (tfi_ranked){-surprise(l, i, log_sum, entropy), (int32_t)i};
    tfi_heap_make(l->heap, n);
    for (; n > 0 && (kept < l->keep || running < (double)mass * sum); kept++) {
        last = tfi_heap_pop(l->heap, &n);
        if (running < (double)mass * sum) cut = -last.key;
        running += weight(l, last.index);
    }
    n = 0;
    for (int64_t i = 0; i < l->n; i++) { /* equal ones at the cut stay together, but not those kept for their number alone */
        const tfi_ranked it = {-surprise(l, i, log_sum, entropy), (int32_t)i};
        if (-it.key <= cut || !tfi_ranked_above(last, it)) keep_one(l, &n, i);
    }
    l->n = n;
    l->max = tfi_row_max(l->scores, n); /* the best one may be gone: nothing else takes it */
}

/* EpsilonLogitsWarper, EtaLogitsWarper: probabilities of at least `least`, and the best `keep` with their equals. */
static void cut_off(survivors *l, double least)
{
    const double sum = sum_of(l);
    const float best = score_of_rank(l, l->keep);
    int64_t n = 0;

    for (int64_t i = 0; i < l->n; i++)
        if (l->scores[i] >= best || weight(l, i) / sum >= least) keep_one(l, &n, i);
    l->n = n;
}

static double eta(const survivors *l, float epsilon)
{
    const double entropy = entropy_of(l, sum_of(l));
    return fmin((double)epsilon, sqrt((double)epsilon) * exp(-entropy));
}

/* The row's ids above -infinity; with top_k as the first of the processors, only those it leaves. */
static void list_survivors(survivors *l, const tfi_sampling *s, const float *y, int64_t V, int64_t k)
{
    float low = -INFINITY;

    if (isnan(s->top_h) && k > 0) {
        tfi_best best = {.heap = l->heap, .limit = k < V ? k : V};
        tfi_best_offer_row(&best, y, V, 0, 0);
        if (best.count > 0) low = -best.heap[0].key;
    }
    for (int64_t i = 0; i < V; i++) {
        l->scores[l->n] = y[i];
        l->ids[l->n] = (int32_t)i;
        l->n += y[i] >= low && y[i] > -INFINITY;
    }
}

static void filter(const tfi_sampling *s, float *y, int64_t V, void *scratch)
{
    /* A slot more than V: list_survivors() writes behind its end */
    survivors l = {.heap = scratch, .max = tfi_row_max(y, V)};

    l.scores = (float *)(l.heap + V + 1);
    l.ids = (int32_t *)(l.scores + V + 1);
    l.keep = s->num_beams < 2 ? 1 : s->eos_count > 0 ? s->eos_count + 1 : 2;
    const int64_t k = s->top_k > 0 && s->top_k < l.keep ? l.keep : s->top_k;
    list_survivors(&l, s, y, V, k);
    if (l.n == 0) return;
    if (!isnan(s->top_h)) {
        top_h(&l, s->top_h);
        if (k > 0) top_k(&l, k);
    }
    if (s->top_p < 1) top_p(&l, s->top_p);
    if (!isnan(s->min_p)) min_p(&l, s->min_p);
    if (s->typical_p < 1) typical(&l, s->typical_p);
    if (s->epsilon_cutoff > 0) cut_off(&l, (double)s->epsilon_cutoff);
    if (s->eta_cutoff > 0) cut_off(&l, eta(&l, s->eta_cutoff));
    for (int64_t i = 0; i < V; i++) y[i] = -INFINITY;
    for (int64_t i = 0; i < l.n; i++) y[l.ids[i]] = l.scores[i];
}

static int filters(const tfi_sampling *s)
{
    return !isnan(s->top_h) || s->top_k > 0 || s->top_p < 1 || !isnan(s->min_p) || s->typical_p < 1 || s->epsilon_cutoff > 0 ||
           s->eta_cutoff > 0;
}

void tfi_warp_row(const tfi_slot *slot, float *y, int64_t V, void *scratch)
{
    const tfi_sampling *s = slot->sampling;

    if (s->do_sample) {
        if (s->temperature != 1)
            for (int64_t i = 0; i < V; i++) y[i] /= s->temperature;
        /* SAMPLE refuses an invalid row as it is. */
        if (filters(s) && !tfi_row_invalid(y, V)) filter(s, y, V, scratch);
    }
    if (s->renormalize_logits) tfi_log_softmax(y, V);
}

int64_t tfi_ref_process_scratch(int64_t V)
{
    return (V + 1) * (int64_t)(sizeof(tfi_ranked) + sizeof(float) + sizeof(int32_t));
}
