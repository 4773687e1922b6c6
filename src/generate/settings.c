/* From what the caller set and what the checkpoint says to the record that the sampling ops read. What comes from the caller is
 * refused if it is out of range, contradicts itself or would do nothing; what comes from a file and would do nothing is passed
 * over, as transformers does. */
#include "generate/settings.h"

#include <math.h>
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "generate/settings_table.h"
#include "tokenizer/unicode.h"

enum { DEFAULT_NEW_TOKENS = 20, IDS_MAX = 1 << 24, STOP_STRINGS_MAX = 1024, STOP_STRING_BYTES_MAX = 1 << 16 };

static const char of_file[] = " (a setting of the checkpoint's own)";

typedef struct merge {
    tf_generate_options asked; /* by the caller */
    tf_generate_options o;     /* the outcome */
    const tf_generate_options *file;
    const tfi_request_facts *facts;
} merge;

static const char *origin(int asked)
{
    return asked ? "" : of_file;
}

static tf_status blame(int asked)
{
    return asked ? TF_STATUS_INVALID : TF_STATUS_CORRUPT;
}

/* ---- numbers ---- */

static int in_range(const tfi_setting *s, double v)
{
    const int above = s->open & TFI_OPEN_LOW ? v > s->min : v >= s->min;
    const int below = s->open & TFI_OPEN_HIGH ? v < s->max : v <= s->max;
    return above && below;
}

static tf_status range_check(const tfi_setting *s, double v, int asked)
{
    if (in_range(s, v)) return TF_STATUS_OK;
    if (s->min == s->max) return tfi_fail(TF_STATUS_UNSUPPORTED, "%s is set to %.9g; leave it unset", s->name, v);
    return tfi_fail(blame(asked), "%s is %.9g, outside %c%.10g, %.10g%c%s", s->name, v, s->open & TFI_OPEN_LOW ? '(' : '[',
                    s->min, s->max, s->open & TFI_OPEN_HIGH ? ')' : ']', origin(asked));
}

/* NULL if the setting acts in this request, else what is missing. */
static const char *missing(const merge *m, tfi_setting_when when)
{
    if (when == TFI_WHEN_SAMPLING && !m->o.do_sample) return "do_sample is 0";
    if (when == TFI_WHEN_BEAMS && m->o.num_beams == 1) return "num_beams is 1";
    if (when == TFI_WHEN_SOURCE && !m->facts->source) return "the input is embeddings, not ids";
    return NULL;
}

static tf_status number_settle(merge *m, const tfi_setting *s)
{
    const double asked = tfi_setting_get(&m->asked, s), of_checkpoint = tfi_setting_get(m->file, s);
    const char *const idle = missing(m, s->when);
    double value = isnan(asked) ? of_checkpoint : asked;
    tf_status status;

    if (!isnan(asked) && (status = range_check(s, asked, 1)) < 0) return status;
    if (!isnan(asked) && idle && asked != s->off && asked != s->unset)
        return tfi_fail(TF_STATUS_INVALID, "%s is set to %.9g, but has no effect: %s", s->name, asked, idle);
    if (idle) value = s->off;
    else if (isnan(value)) value = s->unset;
    else if ((status = range_check(s, value, !isnan(asked))) < 0) return status;
    tfi_setting_put(&m->o, s, value);
    return TF_STATUS_OK;
}

/* ---- lengths ---- */

/* The decoder's tokens at which a sequence ends, before the model's context is looked at. The caller's settings count before
 * the checkpoint's; among those of one origin max_new_tokens does. */
static int64_t asked_max_length(const merge *m)
{
    const tf_generate_options *const from[2] = {&m->asked, m->file};
    const int64_t prompt = m->facts->prompt;

    for (int i = 0; i < 2; i++) {
        if (from[i]->max_new_tokens != TF_UNSET) return prompt + from[i]->max_new_tokens;
        if (from[i]->max_length != TF_UNSET) return from[i]->max_length;
    }
    /* By default a sequence ends with the model's last position; one that was asked for may have one token behind it. */
    const int64_t context = m->facts->max_context > prompt ? m->facts->max_context : prompt + 1;
    return prompt + DEFAULT_NEW_TOKENS < context ? prompt + DEFAULT_NEW_TOKENS : context;
}

static tf_status max_length_settle(const merge *m, tfi_sampling *s)
{
    const tfi_request_facts *const f = m->facts;
    const int asked = m->asked.max_length != TF_UNSET;
    const int64_t longest = (int64_t)f->max_context + 1, max_length = asked_max_length(m);

    if (f->prompt > f->max_context)
        return tfi_fail(TF_STATUS_INVALID, "the prompt has %d tokens, the model's context is %d", (int)f->prompt,
                        (int)f->max_context);
    if (asked && m->asked.max_new_tokens != TF_UNSET && max_length > m->asked.max_length)
        return tfi_fail(TF_STATUS_INVALID, "max_new_tokens is %d behind a prompt of %d tokens, but max_length is %d",
                        (int)m->asked.max_new_tokens, (int)f->prompt, (int)m->asked.max_length);
    if (max_length <= f->prompt)
        return tfi_fail(TF_STATUS_INVALID, "the prompt has %d tokens, max_length is %lld%s: no room for a new token",
                        (int)f->prompt, (long long)max_length, origin(asked));
    s->max_length = (int32_t)(max_length < longest ? max_length : longest < INT32_MAX ? longest : INT32_MAX);
    return TF_STATUS_OK;
}

static tf_status min_length_settle(const merge *m, tfi_sampling *s)
{
    const tf_generate_options *const from[2] = {&m->asked, m->file};
    const int asked = m->asked.min_new_tokens != TF_UNSET || m->asked.min_length != TF_UNSET;
    const int64_t prompt = m->facts->prompt;
    int64_t min_length = 0;

    for (int i = 0; i < 2; i++) {
        if (from[i]->min_new_tokens == TF_UNSET && from[i]->min_length == TF_UNSET) continue;
        s->min_new_tokens = from[i]->min_new_tokens == TF_UNSET ? 0 : from[i]->min_new_tokens;
        min_length = from[i]->min_new_tokens == TF_UNSET ? from[i]->min_length : prompt + from[i]->min_new_tokens;
        break;
    }
    if (m->asked.min_new_tokens != TF_UNSET && m->asked.min_length > min_length)
        return tfi_fail(TF_STATUS_INVALID, "min_new_tokens is %d behind a prompt of %d tokens, but min_length is %d",
                        (int)m->asked.min_new_tokens, (int)prompt, (int)m->asked.min_length);
    if (asked && min_length > s->max_length)
        return tfi_fail(TF_STATUS_INVALID, "%s asks for at least %lld tokens with the prompt's %d, but a sequence ends at %d",
                        m->asked.min_new_tokens != TF_UNSET ? "min_new_tokens" : "min_length", (long long)min_length,
                        (int)prompt, (int)s->max_length);
    s->min_length = (int32_t)(min_length < INT32_MAX ? min_length : INT32_MAX);
    return TF_STATUS_OK;
}

/* ---- lists: who wins, and whether they are sound ---- */

static tf_status count_check(const char *name, const void *items, int64_t count, int64_t max)
{
    if (count == TF_UNSET && !items) return TF_STATUS_OK;
    if (count == TF_UNSET) return tfi_fail(TF_STATUS_INVALID, "%s is set, its count is not", name);
    if (count < 0 || count > max)
        return tfi_fail(TF_STATUS_INVALID, "%s: count is %lld, outside [0, %lld]", name, (long long)count, (long long)max);
    if (count > 0 && !items) return tfi_fail(TF_STATUS_INVALID, "%s is NULL, its count is %lld", name, (long long)count);
    return TF_STATUS_OK;
}

static tf_status id_check(const merge *m, const char *name, int64_t at, int32_t id)
{
    if (id >= 0 && id < m->facts->vocab) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_INVALID, "%s: id %lld is %d, outside the vocabulary of %d", name, (long long)at, (int)id,
                    (int)m->facts->vocab);
}

static tf_status ids_settle(merge *m, const tfi_id_setting *s)
{
    const int32_t *ids;
    int64_t count;
    tf_status status;

    memcpy(&ids, (const char *)&m->asked + s->ids_at, sizeof ids);
    memcpy(&count, (const char *)&m->asked + s->count_at, sizeof count);
    if ((status = count_check(s->name, ids, count, IDS_MAX)) < 0) return status;
    if (count == TF_UNSET) {
        memcpy(&ids, (const char *)m->file + s->ids_at, sizeof ids);
        memcpy(&count, (const char *)m->file + s->count_at, sizeof count);
        if (count == TF_UNSET) count = 0;
    }
    for (int64_t i = 0; i < count; i++)
        if ((status = id_check(m, s->name, i, ids[i])) < 0) return status;
    memcpy((char *)&m->o + s->ids_at, &ids, sizeof ids);
    memcpy((char *)&m->o + s->count_at, &count, sizeof count);
    return TF_STATUS_OK;
}

static tf_status lists_settle(const merge *m, const char *name, const tf_id_lists *asked, const tf_id_lists *file,
                              tf_id_lists *out)
{
    tf_status status = count_check(name, asked->ids, asked->count, IDS_MAX);
    int64_t total = 0;

    if (status < 0 || (status = count_check(name, asked->lens, asked->count, IDS_MAX)) < 0) return status;
    *out = asked->count == TF_UNSET ? *file : *asked;
    if (out->count == TF_UNSET) out->count = 0;
    for (int64_t i = 0; i < out->count; i++) {
        if (out->lens[i] < 1 || (total += out->lens[i]) > IDS_MAX)
            return tfi_fail(TF_STATUS_INVALID, "%s: sequence %lld has %d ids; each has one at least, all have %d at most", name,
                            (long long)i, (int)out->lens[i], IDS_MAX);
    }
    for (int64_t i = 0; i < total; i++)
        if ((status = id_check(m, name, i, out->ids[i])) < 0) return status;
    return TF_STATUS_OK;
}

static tf_status bias_settle(merge *m)
{
    const tf_id_lists *const asked = &m->asked.sequence_bias;
    tf_status status = lists_settle(m, "sequence_bias", asked, &m->file->sequence_bias, &m->o.sequence_bias);

    if (status < 0) return status;
    if ((status = count_check("sequence_bias_values", m->asked.sequence_bias_values, asked->count, IDS_MAX)) < 0) return status;
    m->o.sequence_bias_values = asked->count == TF_UNSET ? m->file->sequence_bias_values : m->asked.sequence_bias_values;
    for (int64_t i = 0; i < m->o.sequence_bias.count; i++)
        if (!isfinite(m->o.sequence_bias_values[i]))
            return tfi_fail(TF_STATUS_INVALID, "sequence_bias_values: value %lld is %g, which is not finite", (long long)i,
                            (double)m->o.sequence_bias_values[i]);
    return TF_STATUS_OK;
}

static size_t text_bytes(const tf_text *t)
{
    return t->size < 0 ? strlen(t->data) : (size_t)t->size;
}

static tf_status stop_strings_settle(merge *m)
{
    const int asked = m->asked.stop_string_count != TF_UNSET;
    tf_status status = count_check("stop_strings", m->asked.stop_strings, m->asked.stop_string_count, STOP_STRINGS_MAX);

    if (status < 0) return status;
    m->o.stop_strings = asked ? m->asked.stop_strings : m->file->stop_strings;
    m->o.stop_string_count = asked ? m->asked.stop_string_count : m->file->stop_string_count;
    if (m->o.stop_string_count == TF_UNSET) m->o.stop_string_count = 0;
    if (m->o.stop_string_count > STOP_STRINGS_MAX)
        return tfi_fail(TF_STATUS_CORRUPT, "stop_strings: count is %lld, at most %d%s", (long long)m->o.stop_string_count,
                        STOP_STRINGS_MAX, of_file);
    if (m->o.stop_string_count > 0 && !m->facts->has_tokenizer)
        return tfi_fail(asked ? TF_STATUS_INVALID : TF_STATUS_UNSUPPORTED,
                        "stop_strings need a tokenizer, which the checkpoint lacks%s",
                        asked ? "" : "; set stop_string_count to 0");
    for (int64_t i = 0; i < m->o.stop_string_count; i++) {
        const tf_text *const t = &m->o.stop_strings[i];
        const size_t size = t->data ? text_bytes(t) : 0;
        uint32_t bad;

        if (size == 0 || size > STOP_STRING_BYTES_MAX)
            return tfi_fail(blame(asked), "stop_strings: string %lld has %zu bytes, outside [1, %d]%s", (long long)i, size,
                            STOP_STRING_BYTES_MAX, origin(asked));
        const size_t valid = tfi_utf8_valid((const uint8_t *)t->data, size, &bad);
        if (valid < size)
            return tfi_fail(blame(asked), "stop_strings: string %lld is not UTF-8 at byte %zu%s", (long long)i, valid,
                            origin(asked));
    }
    return TF_STATUS_OK;
}

/* ---- what only makes sense together ---- */

static tf_status results_check(const merge *m)
{
    const int asked = m->asked.num_return_sequences != TF_UNSET || m->asked.num_beams != TF_UNSET ||
                      m->asked.do_sample != TF_UNSET;
    const int32_t results = m->o.num_return_sequences, beams = m->o.num_beams;

    if (results > 1 && beams == 1 && !m->o.do_sample)
        return tfi_fail(blame(asked), "num_return_sequences is %d, but do_sample is 0 and num_beams 1: all would be equal%s",
                        (int)results, origin(asked));
    if (beams > 1 && results > beams)
        return tfi_fail(blame(asked), "num_return_sequences is %d, more than num_beams, which is %d%s", (int)results,
                        (int)beams, origin(asked));
    const tfi_sampling ranked = {.num_beams = beams, .eos_count = (int32_t)m->o.eos_count};
    if (beams > 1 && (m->o.eos_count > TFI_BEAM_CANDIDATES_MAX || tfi_beam_candidates(&ranked) > TFI_BEAM_CANDIDATES_MAX))
        return tfi_fail(blame(asked), "%d beams with %lld end-of-sequence tokens are more than a step of beam search can rank%s",
                        (int)beams, (long long)m->o.eos_count, origin(asked));
    return TF_STATUS_OK;
}

static tf_status decay_check(merge *m)
{
    const int start = m->asked.decay_start != TF_UNSET, factor = !isnan(m->asked.decay_factor);

    if (start != factor) return tfi_fail(TF_STATUS_INVALID, "decay_start and decay_factor are set together or not at all");
    if (m->o.decay_start < 0 || m->o.eos_count > 0) return TF_STATUS_OK;
    if (start) return tfi_fail(TF_STATUS_INVALID, "decay_start is set, but has no effect: there are no eos_ids");
    m->o.decay_start = -1;
    return TF_STATUS_OK;
}

static tf_status forced_bos_check(const merge *m)
{
    const int32_t asked = m->asked.forced_bos_id;

    if (asked == TF_UNSET || asked < 0) return TF_STATUS_OK;
    if (asked >= m->facts->vocab)
        return tfi_fail(TF_STATUS_INVALID, "forced_bos_id is %d, outside the vocabulary of %d", (int)asked,
                        (int)m->facts->vocab);
    if (m->facts->prompt == 1) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_INVALID,
                    "forced_bos_id is set, but has no effect: it follows a prompt of one token, this one has %d",
                    (int)m->facts->prompt);
}

static int contains(const int32_t *ids, int64_t count, int32_t id)
{
    for (int64_t i = 0; i < count; i++)
        if (ids[i] == id) return 1;
    return 0;
}

/* A token that is forced and suppressed leaves none at all. */
static tf_status suppress_check(const merge *m)
{
    const int asked = m->asked.suppress_count != TF_UNSET;
    const int eos_asked = asked || m->asked.forced_eos_count != TF_UNSET;
    const int bos_asked = asked || m->asked.forced_bos_id != TF_UNSET;
    int64_t free_ends = 0;

    for (int64_t i = 0; i < m->o.forced_eos_count && free_ends == 0; i++)
        free_ends += !contains(m->o.suppress_ids, m->o.suppress_count, m->o.forced_eos_ids[i]);
    if (m->o.forced_eos_count > 0 && free_ends == 0)
        return tfi_fail(blame(eos_asked), "all of forced_eos_ids are among suppress_ids%s", origin(eos_asked));
    if (m->o.forced_bos_id >= 0 && contains(m->o.suppress_ids, m->o.suppress_count, m->o.forced_bos_id))
        return tfi_fail(blame(bos_asked), "forced_bos_id, %d, is among suppress_ids%s", (int)m->o.forced_bos_id,
                        origin(bos_asked));
    return TF_STATUS_OK;
}

static tf_status together_check(merge *m)
{
    tf_status status;

    if (m->asked.logits_user && !m->asked.logits) return tfi_fail(TF_STATUS_INVALID, "logits_user is set, logits is not");
    if (m->o.decoder_count > 0 && !m->facts->has_encoder)
        return tfi_fail(TF_STATUS_INVALID, "decoder_ids is set, but the model has no encoder: its prompt is the input");
    if ((status = results_check(m)) < 0 || (status = decay_check(m)) < 0 || (status = forced_bos_check(m)) < 0) return status;
    return suppress_check(m);
}

static tf_status merge_all(merge *m)
{
    tf_status status;

    for (int i = 0; i < TFI_SETTING_COUNT; i++)
        if ((status = number_settle(m, &tfi_setting_table[i])) < 0) return status;
    for (int i = 0; i < TFI_ID_SETTING_COUNT; i++)
        if ((status = ids_settle(m, &tfi_id_setting_table[i])) < 0) return status;
    if ((status = lists_settle(m, "bad_words", &m->asked.bad_words, &m->file->bad_words, &m->o.bad_words)) < 0) return status;
    if ((status = bias_settle(m)) < 0 || (status = stop_strings_settle(m)) < 0) return status;
    m->o.seed = m->asked.seed == TF_UNSET ? 0 : m->asked.seed;
    m->o.logits = m->asked.logits;
    m->o.logits_user = m->asked.logits_user;
    return together_check(m);
}

/* ---- the block: laid out once to count its bytes, once to fill it ---- */

typedef struct block {
    char *data; /* NULL while counting */
    size_t bytes;
} block;

static void *take(block *b, size_t bytes)
{
    char *const at = b->data ? b->data + b->bytes : NULL;

    b->bytes += (bytes + 7) / 8 * 8;
    return at;
}

static void *copy(block *b, const void *from, size_t bytes)
{
    void *const at = take(b, bytes);

    if (at && bytes > 0) memcpy(at, from, bytes);
    return at;
}

static const int32_t *copy_ids(block *b, const int32_t *ids, int64_t count, int32_t *out_count)
{
    *out_count = (int32_t)count;
    return copy(b, ids, (size_t)count * sizeof *ids);
}

static uint32_t sequence_hash(const int32_t *ids, int32_t count)
{
    uint32_t h = 2166136261u;

    for (int32_t i = 0; i < count; i++) h = (h ^ (uint32_t)ids[i]) * 16777619u;
    return h ^ h >> 15;
}

/* Of sequences that occur more than once the last one counts: `seen` [mask + 1], of -1, finds the earlier one. Returns its
 * number. */
static int32_t earlier(const tfi_id_lists *l, int32_t *seen, uint32_t mask, int32_t list)
{
    const int32_t *const ids = l->ids + l->start[list], count = l->start[list + 1] - l->start[list];

    for (uint32_t at = sequence_hash(ids, count) & mask;; at = (at + 1) & mask) {
        const int32_t other = seen[at];

        if (other < 0) {
            seen[at] = list;
            return -1;
        }
        if (l->start[other + 1] - l->start[other] == count &&
            !memcmp(l->ids + l->start[other], ids, (size_t)count * sizeof *ids))
            return other;
    }
}

/* Pack `from` into the block. `values`: a bias for each, the last one counting where sequences are equal. `eos`: single ids
 * that are left out, as transformers does with bad words. */
static void copy_lists(block *b, const tf_id_lists *from, const float *values, const int32_t *eos, int64_t eos_count,
                       tfi_id_lists *out, const float **out_values)
{
    uint32_t capacity = 1;
    int64_t total = 0;

    for (int64_t i = 0; i < from->count; i++) total += from->lens[i];
    while (capacity < 2 * (uint64_t)from->count) capacity *= 2;
    int32_t *const start = take(b, (size_t)(from->count + 1) * sizeof *start);
    int32_t *const ids = take(b, (size_t)total * sizeof *ids);
    float *const biases = values ? take(b, (size_t)from->count * sizeof *biases) : NULL;
    int32_t *const seen = values ? take(b, capacity * sizeof *seen) : NULL;
    const int32_t *at = from->ids;

    *out = (tfi_id_lists){.start = start, .ids = ids};
    if (values) *out_values = biases;
    if (!b->data) return;
    if (seen) memset(seen, -1, capacity * sizeof *seen);
    start[0] = 0;
    for (int64_t i = 0; i < from->count; at += from->lens[i++]) {
        const int32_t n = out->count;

        if (!values && from->lens[i] == 1 && contains(eos, eos_count, *at)) continue;
        memcpy(ids + start[n], at, (size_t)from->lens[i] * sizeof *at);
        start[n + 1] = start[n] + from->lens[i];
        const int32_t other = values ? earlier(out, seen, capacity - 1, n) : -1;
        if (values) biases[other < 0 ? n : other] = values[i];
        out->count += other < 0;
    }
}

static void copy_texts(block *b, const tf_text *from, int64_t count, tfi_settings *s)
{
    tf_text *const texts = take(b, (size_t)count * sizeof *texts);

    for (int64_t i = 0; i < count; i++) {
        const size_t bytes = text_bytes(&from[i]);
        const char *const data = copy(b, from[i].data, bytes);
        if (texts) texts[i] = (tf_text){data, (int64_t)bytes};
    }
    s->stop_strings = texts;
    s->stop_string_count = (int32_t)count;
}

static void lay_out(const merge *m, block *b, tfi_settings *s)
{
    const tf_generate_options *const o = &m->o;
    tfi_sampling *const p = &s->sampling;

    p->eos = copy_ids(b, o->eos_ids, o->eos_count, &p->eos_count);
    p->forced_eos = copy_ids(b, o->forced_eos_ids, o->forced_eos_count, &p->forced_eos_count);
    p->suppress = copy_ids(b, o->suppress_ids, o->suppress_count, &p->suppress_count);
    p->begin_suppress = copy_ids(b, o->begin_suppress_ids, o->begin_suppress_count, &p->begin_suppress_count);
    p->source = copy_ids(b, m->facts->source, m->facts->source ? m->facts->source_count : 0, &p->source_count);
    copy_lists(b, &o->sequence_bias, o->sequence_bias_values, NULL, 0, &p->sequence_bias, &p->sequence_bias_values);
    copy_lists(b, &o->bad_words, NULL, o->eos_ids, o->eos_count, &p->bad_words, NULL);
    copy_texts(b, o->stop_strings, o->stop_string_count, s);
}

static void numbers_copy(const merge *m, tfi_settings *s)
{
    const tf_generate_options *const o = &m->o;
    tfi_sampling *const p = &s->sampling;
    const int32_t prompt = m->facts->prompt;

    p->vocab = m->facts->vocab;
    p->prompt = prompt;
    p->encoder_repetition_penalty = o->encoder_repetition_penalty;
    p->repetition_penalty = o->repetition_penalty;
    p->presence_penalty = o->presence_penalty;
    p->frequency_penalty = o->frequency_penalty;
    p->no_repeat_ngram_size = o->no_repeat_ngram_size;
    p->encoder_no_repeat_ngram_size = o->encoder_no_repeat_ngram_size;
    p->forced_bos = o->forced_bos_id;
    p->remove_invalid_values = o->remove_invalid_values;
    p->decay_start = o->decay_start;
    p->decay_factor = o->decay_factor;
    p->begin_index = prompt > 1 || o->forced_bos_id < 0 ? prompt : prompt + 1;
    p->do_sample = o->do_sample;
    p->temperature = o->temperature;
    p->top_h = o->top_h;
    p->top_k = o->top_k;
    p->top_p = o->top_p;
    p->min_p = o->min_p;
    p->typical_p = o->typical_p;
    p->epsilon_cutoff = o->epsilon_cutoff;
    p->eta_cutoff = o->eta_cutoff;
    p->renormalize_logits = o->renormalize_logits;
    p->seed = (uint64_t)o->seed;
    p->logprobs = o->logprobs;
    p->num_beams = o->num_beams;
    p->length_penalty = o->length_penalty;
    p->early_stopping = o->early_stopping;
    s->results = o->num_return_sequences;
    s->slots = o->num_beams > 1 ? o->num_beams : o->num_return_sequences;
    s->max_time = o->max_time;
    s->logits = o->logits;
    s->logits_user = o->logits_user;
    s->prompt_logprobs = o->prompt_logprobs;
    s->keep_logits = o->keep_logits;
    s->keep_scores = o->keep_scores;
    s->skip_special_tokens = o->skip_special_tokens;
    s->clean_up = o->clean_up;
}

tf_status tfi_settings_open(tfi_settings *s, const tfi_generation *defaults, const tf_generate_options *caller,
                            const tfi_request_facts *facts, tfi_memory *memory)
{
    merge m = {.file = &defaults->options, .facts = facts};
    block b = {0};
    tf_status status;

    *s = (tfi_settings){.memory = memory};
    tf_generate_options_init(&m.asked);
    tf_generate_options_init(&m.o);
    if ((status = tfi_options_read(&m.asked, sizeof m.asked, caller, "tf_generate_options")) < 0) return status;
    if ((status = merge_all(&m)) < 0) return status;
    if ((status = max_length_settle(&m, &s->sampling)) < 0 || (status = min_length_settle(&m, &s->sampling)) < 0) return status;
    numbers_copy(&m, s);
    lay_out(&m, &b, s);
    if (!(s->block = tfi_alloc(memory, b.bytes))) return TF_STATUS_NOMEM;
    s->block_bytes = b.bytes;
    b = (block){.data = s->block};
    lay_out(&m, &b, s);
    return TF_STATUS_OK;
}

void tfi_settings_close(tfi_settings *s)
{
    if (!s->memory) return;
    tfi_free(s->memory, s->block, s->block_bytes);
    *s = (tfi_settings){0};
}
