/* The processors of the first stage, those that transformers applies whether it samples or not, in its order and arithmetic.
 * Named after its classes. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "backend/ref/process.h"
#include "backend/ref/softmax.h"

/* A row being processed: the logits, what its sequence said so far, and a number for each id that is undefined between uses, so
 * that nothing costs time for all ids where only few matter. */
typedef struct row {
    const tfi_sampling *s;
    float *y;
    int32_t V;
    const int32_t *tokens;
    int32_t length;
    float *notes; /* [V] */
} row;

static int in_vocab(const row *r, int32_t id)
{
    return id >= 0 && id < r->V;
}

static void fill(float *y, int64_t V, float value)
{
    for (int64_t i = 0; i < V; i++) y[i] = value;
}

static void ban(const row *r, const int32_t *ids, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (in_vocab(r, ids[i])) r->y[ids[i]] = -INFINITY;
}

/* ---- SequenceBiasLogitsProcessor and NoBadWordsLogitsProcessor ---- */

static int32_t list_length(const tfi_id_lists *l, int32_t i)
{
    return l->start[i + 1] - l->start[i];
}

static const int32_t *list_ids(const tfi_id_lists *l, int32_t i)
{
    return l->ids + l->start[i];
}

/* The sequence's last id may come next: the ids before it are what was said last. */
static int is_due(const row *r, const tfi_id_lists *l, int32_t i)
{
    const int32_t before = list_length(l, i) - 1;
    if (before < 0 || before > r->length || !in_vocab(r, list_ids(l, i)[before])) return 0;
    return memcmp(list_ids(l, i), r->tokens + r->length - before, (size_t)before * sizeof *r->tokens) == 0;
}

/* The sequence stands in the list again: the last one's bias counts. */
static int is_repeated(const tfi_id_lists *l, int32_t i)
{
    const int32_t length = list_length(l, i);

    for (int32_t k = i + 1; k < l->count; k++)
        if (list_length(l, k) == length && memcmp(list_ids(l, k), list_ids(l, i), (size_t)length * sizeof *l->ids) == 0)
            return 1;
    return 0;
}

static void bias_sequences(const row *r)
{
    const tfi_id_lists *l = &r->s->sequence_bias;

    for (int32_t pass = 0; pass < 3; pass++) { /* the biases of an id are added up first, as there */
        for (int32_t i = 0; i < l->count; i++) {
            if (!is_due(r, l, i)) continue;
            const int32_t id = list_ids(l, i)[list_length(l, i) - 1];
            if (pass == 0) {
                r->notes[id] = 0;
            } else if (pass == 1) {
                if (!is_repeated(l, i)) r->notes[id] += r->s->sequence_bias_values[i];
            } else {
                r->y[id] += r->notes[id];
                r->notes[id] = 0;
            }
        }
    }
}

static void ban_words(const row *r)
{
    const tfi_id_lists *l = &r->s->bad_words;

    for (int32_t i = 0; i < l->count; i++) {
        if (!is_due(r, l, i)) continue;
        const int32_t length = list_length(l, i), id = list_ids(l, i)[length - 1];
        if (length > 1 || !tfi_is_eos(r->s, id)) r->y[id] += -INFINITY;
    }
}

/* ---- penalties ---- */

/* RepetitionPenaltyLogitsProcessor, EncoderRepetitionPenaltyLogitsProcessor: once for each id among `ids`. */
static void penalise_repetition(const row *r, const int32_t *ids, int32_t count, float penalty)
{
    for (int32_t i = 0; i < count; i++)
        if (in_vocab(r, ids[i])) r->notes[ids[i]] = 0;
    for (int32_t i = 0; i < count; i++) {
        if (!in_vocab(r, ids[i]) || r->notes[ids[i]] > 0) continue;
        float *y = &r->y[ids[i]];
        r->notes[ids[i]] = 1;
        *y = *y < 0 ? *y * penalty : *y / penalty;
    }
}

/* Ours, as other libraries have it: for each id that was drawn, presence plus frequency times how often. */
static void penalise_drawn(const row *r)
{
    const int32_t *drawn = r->tokens + r->s->prompt;
    const int32_t count = r->length - r->s->prompt;

    for (int32_t i = 0; i < count; i++) r->notes[drawn[i]] = 0;
    for (int32_t i = 0; i < count; i++) r->notes[drawn[i]]++;
    for (int32_t i = 0; i < count; i++) {
        float *times = &r->notes[drawn[i]];
        if (*times > 0) r->y[drawn[i]] -= r->s->presence_penalty + r->s->frequency_penalty * *times;
        *times = 0;
    }
}

/* NoRepeatNGramLogitsProcessor, EncoderNoRepeatNGramLogitsProcessor: bans what followed in `ids` wherever they hold the last
 * size - 1 tokens. */
static void ban_ngrams(const row *r, const int32_t *ids, int32_t count, int32_t size)
{
    if (r->length + 1 < size) return;
    const int32_t *last = r->tokens + r->length + 1 - size;
    for (int32_t i = 0; i + size <= count; i++)
        if (memcmp(ids + i, last, (size_t)(size - 1) * sizeof *ids) == 0) ban(r, ids + i + size - 1, 1);
}

/* ---- the rest ---- */

/* ForcedBOSTokenLogitsProcessor, ForcedEOSTokenLogitsProcessor */
static void force(const row *r, const int32_t *ids, int32_t count)
{
    fill(r->y, r->V, -INFINITY);
    for (int32_t i = 0; i < count; i++)
        if (in_vocab(r, ids[i])) r->y[ids[i]] = 0;
}

/* InfNanRemoveLogitsProcessor */
static void remove_invalid(const row *r)
{
    for (int32_t i = 0; i < r->V; i++) {
        const float v = r->y[i];
        r->y[i] = v != v ? 0 : v > FLT_MAX ? FLT_MAX : v < -FLT_MAX ? -FLT_MAX : v;
    }
}

/* ExponentialDecayLengthPenalty; an id that is twice among the ends counts once. */
static void favour_end(const row *r, int32_t past)
{
    const tfi_sampling *s = r->s;
    const float factor = (float)(pow((double)s->decay_factor, past) - 1);

    for (int32_t i = 0; i < s->eos_count; i++) r->notes[s->eos[i]] = r->y[s->eos[i]];
    for (int32_t i = 0; i < s->eos_count; i++) {
        const float before = r->notes[s->eos[i]];
        if (isfinite(before)) r->y[s->eos[i]] = before + fabsf(before) * factor;
    }
}

static void repetition(const row *r)
{
    const tfi_sampling *s = r->s;

    if (s->encoder_repetition_penalty != 1)
        penalise_repetition(r, s->source, s->source_count, (float)(1 / (double)s->encoder_repetition_penalty));
    if (s->repetition_penalty != 1) penalise_repetition(r, r->tokens, r->length, s->repetition_penalty);
    if (s->presence_penalty != 0 || s->frequency_penalty != 0) penalise_drawn(r);
    if (s->no_repeat_ngram_size > 0) ban_ngrams(r, r->tokens, r->length, s->no_repeat_ngram_size);
    if (s->encoder_no_repeat_ngram_size > 0) ban_ngrams(r, s->source, s->source_count, s->encoder_no_repeat_ngram_size);
}

void tfi_constrain_row(const tfi_slot *slot, float *y, int64_t V, void *scratch)
{
    const tfi_sampling *s = slot->sampling;
    const row r = {s, y, (int32_t)V, slot->tokens, slot->count, scratch};
    const int32_t drawn = r.length - s->prompt;

    if (s->num_beams > 1) tfi_log_softmax(y, V);
    bias_sequences(&r);
    repetition(&r);
    ban_words(&r);
    if (r.length < s->min_length || drawn < s->min_new_tokens) ban(&r, s->eos, s->eos_count);
    if (s->forced_bos >= 0 && r.length == 1) force(&r, &s->forced_bos, 1);
    if (s->forced_eos_count > 0 && r.length == s->max_length - 1) force(&r, s->forced_eos, s->forced_eos_count);
    if (s->remove_invalid_values) remove_invalid(&r);
    if (s->decay_start >= 0 && drawn > s->decay_start) favour_end(&r, drawn - s->decay_start);
    ban(&r, s->suppress, s->suppress_count);
    if (r.length == s->begin_index) ban(&r, s->begin_suppress, s->begin_suppress_count);
}
