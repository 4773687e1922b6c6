/* generation_config.json, or the same keys of config.json: a checkpoint's own settings. Types and ids are checked here, ranges
 * where a request uses a setting: files hold values that do nothing there, and those are no reason to refuse the checkpoint. */
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "generate/settings.h"
#include "generate/settings_table.h"
#include "models/config.h"

enum { LOGGED_KEYS_MAX = 64 };

typedef struct reader {
    tfi_json j;
    int32_t vocab;
    tfi_arena *arena;
    tf_log_fn log;
    void *log_user;
    tf_generate_options *options;
} reader;

static void TFI_PRINTF(3, 4) say(const reader *r, tf_log_level level, const char *format, ...)
{
    char text[256];
    va_list arguments;

    if (!r->log) return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    r->log(r->log_user, level, text);
}

static const json_t *find(const reader *r, const char *key)
{
    const json_t *v = json_object_get(r->j.object, key);
    return v && !json_is_null(v) ? v : NULL;
}

static tf_status wrong(const reader *r, const char *key, const char *expected)
{
    char *const value = json_dumps(find(r, key), JSON_ENCODE_ANY | JSON_COMPACT);
    const tf_status status = tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %.200s, %s is expected", r->j.file, key,
                                      value ? value : "a long value", expected);

    free(value); /* jansson's, by malloc */
    return status;
}

/* ---- ids ---- */

/* Whole numbers of files with very large ones come as doubles: see tfi_json_parse. */
static int whole(const json_t *v, int64_t *out)
{
    const double d = json_number_value(v);

    if (json_is_integer(v)) *out = json_integer_value(v);
    else if (json_is_real(v) && fabs(d) < 0x1p53 && d == floor(d)) *out = (int64_t)d;
    else return 0;
    return 1;
}

static tf_status id_store(const reader *r, const char *key, const json_t *v, int32_t *out)
{
    int64_t id;

    if (!whole(v, &id)) return wrong(r, key, "token ids");
    if (id < 0 || id >= r->vocab)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" has the id %lld, outside the vocabulary of %d", r->j.file, key,
                        (long long)id, (int)r->vocab);
    *out = (int32_t)id;
    return TF_STATUS_OK;
}

/* An id, or a list of ids. */
static tf_status ids_read(const reader *r, const char *key, const json_t *v, const int32_t **out, int64_t *count)
{
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    int32_t *const ids = tfi_arena_alloc(r->arena, (n ? n : 1) * sizeof *ids);
    tf_status status = TF_STATUS_OK;

    if (!ids) return TF_STATUS_NOMEM;
    for (size_t i = 0; i < n && status == TF_STATUS_OK; i++)
        status = id_store(r, key, json_is_array(v) ? json_array_get(v, i) : v, &ids[i]);
    *out = ids;
    *count = (int64_t)n;
    return status;
}

/* One of the special tokens. Configurations name ids that a small vocabulary does not have; nothing can ever draw those. */
static tf_status special_read(const reader *r, const char *key, int32_t *out)
{
    const json_t *v = find(r, key);
    int64_t id;

    *out = -1;
    if (!v) return TF_STATUS_OK;
    if (!whole(v, &id)) return wrong(r, key, "a token id");
    if (id >= 0 && id < r->vocab) *out = (int32_t)id;
    else
        say(r, TF_LOG_WARNING, "%s: \"%s\" is %lld, outside the vocabulary of %d, and is ignored", r->j.file, key,
            (long long)id, (int)r->vocab);
    return TF_STATUS_OK;
}

/* The same for the tokens that end a sequence: what is outside the vocabulary is left out. */
static tf_status eos_read(const reader *r, const json_t *v)
{
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    int32_t *const ids = tfi_arena_alloc(r->arena, (n ? n : 1) * sizeof *ids);
    int64_t count = 0, id;

    if (!ids) return TF_STATUS_NOMEM;
    for (size_t i = 0; i < n; i++) {
        if (!whole(json_is_array(v) ? json_array_get(v, i) : v, &id)) return wrong(r, "eos_token_id", "token ids");
        if (id >= 0 && id < r->vocab) ids[count++] = (int32_t)id;
        else
            say(r, TF_LOG_WARNING, "%s: \"eos_token_id\" has %lld, outside the vocabulary of %d, which ends nothing", r->j.file,
                (long long)id, (int)r->vocab);
    }
    r->options->eos_ids = ids;
    r->options->eos_count = count;
    return TF_STATUS_OK;
}

static tf_status id_settings_read(const reader *r)
{
    tf_status status;

    for (int i = 0; i < TFI_ID_SETTING_COUNT; i++) {
        const tfi_id_setting *const s = &tfi_id_setting_table[i];
        const json_t *const v = s->key ? find(r, s->key) : NULL;
        char *const o = (char *)r->options;
        const int32_t *ids;
        int64_t count;

        if (!v) continue;
        if (i == 0) {
            if ((status = eos_read(r, v)) < 0) return status;
            continue;
        }
        if ((status = ids_read(r, s->key, v, &ids, &count)) < 0) return status;
        memcpy(o + s->ids_at, &ids, sizeof ids);
        memcpy(o + s->count_at, &count, sizeof count);
    }
    return TF_STATUS_OK;
}

/* ---- lists of sequences ---- */

/* Room for lists that are added one by one. */
typedef struct lists {
    int32_t *lens, *ids;
    int64_t count, id_count;
} lists;

static tf_status lists_open(const reader *r, size_t count, size_t ids, lists *l)
{
    memset(l, 0, sizeof *l);
    l->lens = tfi_arena_alloc(r->arena, (count ? count : 1) * sizeof *l->lens);
    l->ids = tfi_arena_alloc(r->arena, (ids ? ids : 1) * sizeof *l->ids);
    return l->lens && l->ids ? TF_STATUS_OK : TF_STATUS_NOMEM;
}

static tf_status lists_add(const reader *r, const char *key, const json_t *sequence, lists *l)
{
    const size_t n = json_array_size(sequence);
    tf_status status = TF_STATUS_OK;

    if (n == 0) return wrong(r, key, "sequences of at least one id");
    for (size_t i = 0; i < n && status == TF_STATUS_OK; i++)
        status = id_store(r, key, json_array_get(sequence, i), &l->ids[l->id_count++]);
    l->lens[l->count++] = (int32_t)n;
    return status;
}

static tf_id_lists lists_done(const lists *l)
{
    return (tf_id_lists){.ids = l->ids, .lens = l->lens, .count = l->count};
}

static tf_status bad_words_read(const reader *r)
{
    static const char key[] = "bad_words_ids";
    const json_t *const v = find(r, key);
    size_t ids = 0;
    tf_status status;
    lists l;

    if (!v) return TF_STATUS_OK;
    if (!json_is_array(v)) return wrong(r, key, "a list of lists of ids");
    for (size_t i = 0; i < json_array_size(v); i++) ids += json_array_size(json_array_get(v, i));
    if ((status = lists_open(r, json_array_size(v), ids, &l)) < 0) return status;
    for (size_t i = 0; i < json_array_size(v) && status == TF_STATUS_OK; i++)
        status = lists_add(r, key, json_array_get(v, i), &l);
    r->options->bad_words = lists_done(&l);
    return status;
}

static tf_status bias_store(const reader *r, const json_t *v, float *out)
{
    if (!json_is_number(v) || fabs(json_number_value(v)) > (double)FLT_MAX)
        return wrong(r, "sequence_bias", "a number for each sequence");
    *out = (float)json_number_value(v);
    return TF_STATUS_OK;
}

/* A list of [ids, bias]. */
static tf_status bias_pairs_read(const reader *r, const json_t *v, lists *l, float *values)
{
    tf_status status = TF_STATUS_OK;

    for (size_t i = 0; i < json_array_size(v) && status == TF_STATUS_OK; i++) {
        const json_t *const pair = json_array_get(v, i);
        if (json_array_size(pair) != 2) return wrong(r, "sequence_bias", "a list of [ids, bias]");
        if ((status = bias_store(r, json_array_get(pair, 1), &values[i])) < 0) return status;
        status = lists_add(r, "sequence_bias", json_array_get(pair, 0), l);
    }
    return status;
}

/* The ids of a key such as "(10, 45)" or "(10,)", as Python prints a tuple. */
static tf_status tuple_read(const reader *r, const char *text, lists *l)
{
    const int64_t first = l->id_count;
    const char *at = text;
    char *end;

    if (*at++ != '(') return wrong(r, "sequence_bias", "keys like \"(10, 45)\"");
    while (*at != ')') {
        const long long id = strtoll(at, &end, 10);
        if (end == at || id < 0 || id >= r->vocab)
            return wrong(r, "sequence_bias", "keys like \"(10, 45)\" of the vocabulary's ids");
        l->ids[l->id_count++] = (int32_t)id;
        at = end + (*end == ',');
        at += strspn(at, " ");
    }
    if (at[1] || l->id_count == first) return wrong(r, "sequence_bias", "keys like \"(10, 45)\"");
    l->lens[l->count++] = (int32_t)(l->id_count - first);
    return TF_STATUS_OK;
}

static tf_status bias_read(const reader *r)
{
    static const char key[] = "sequence_bias";
    const json_t *const v = find(r, key);
    const size_t count = json_is_object(v) ? json_object_size(v) : json_array_size(v);
    size_t ids = 0, i = 0;
    const char *name;
    json_t *bias;
    tf_status status;
    lists l;

    if (!v) return TF_STATUS_OK;
    if (!json_is_object(v) && !json_is_array(v)) return wrong(r, key, "a list of [ids, bias]");
    json_object_foreach((json_t *)v, name, bias) ids += strlen(name); /* more than it has ids */
    for (size_t n = 0; n < json_array_size(v); n++) ids += json_array_size(json_array_get(json_array_get(v, n), 0));
    float *const values = tfi_arena_alloc(r->arena, (count ? count : 1) * sizeof *values);
    if (!values || lists_open(r, count, ids, &l) < 0) return TF_STATUS_NOMEM;
    if (json_is_array(v) && (status = bias_pairs_read(r, v, &l, values)) < 0) return status;
    json_object_foreach((json_t *)v, name, bias)
    {
        if ((status = bias_store(r, bias, &values[i++])) < 0) return status;
        if ((status = tuple_read(r, name, &l)) < 0) return status;
    }
    r->options->sequence_bias = lists_done(&l);
    r->options->sequence_bias_values = values;
    return TF_STATUS_OK;
}

/* ---- the rest ---- */

static tf_status stop_strings_read(const reader *r)
{
    static const char key[] = "stop_strings";
    const json_t *const v = find(r, key);
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;
    tf_text *texts;

    if (!v) return TF_STATUS_OK;
    if (!(texts = tfi_arena_alloc(r->arena, (n ? n : 1) * sizeof *texts))) return TF_STATUS_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const json_t *const s = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(s)) return wrong(r, key, "a string or a list of strings");
        texts[i].size = (int64_t)json_string_length(s);
        if (!(texts[i].data = tfi_arena_copy(r->arena, json_string_value(s), json_string_length(s)))) return TF_STATUS_NOMEM;
    }
    r->options->stop_strings = texts;
    r->options->stop_string_count = (int64_t)n;
    return TF_STATUS_OK;
}

static tf_status early_stopping_read(const reader *r)
{
    const json_t *const v = find(r, "early_stopping");

    if (!v) return TF_STATUS_OK;
    if (json_is_boolean(v)) r->options->early_stopping = json_is_true(v) ? TF_EARLY_STOPPING_ON : TF_EARLY_STOPPING_OFF;
    else if (json_is_string(v) && !strcmp(json_string_value(v), "never")) r->options->early_stopping = TF_EARLY_STOPPING_NEVER;
    else return wrong(r, "early_stopping", "true, false or \"never\"");
    return TF_STATUS_OK;
}

static tf_status decay_read(const reader *r)
{
    static const char key[] = "exponential_decay_length_penalty";
    const json_t *const v = find(r, key), *const factor = json_array_get(v, 1);
    int64_t start;

    if (!v) return TF_STATUS_OK;
    if (json_array_size(v) != 2 || !whole(json_array_get(v, 0), &start) || start < 0 || start > INT32_MAX ||
        !json_is_number(factor) || fabs(json_number_value(factor)) > (double)FLT_MAX)
        return wrong(r, key, "[start, factor]");
    r->options->decay_start = (int32_t)start;
    r->options->decay_factor = (float)json_number_value(factor);
    return TF_STATUS_OK;
}

static tf_status forced_bos_read(const reader *r)
{
    const json_t *const v = find(r, "forced_bos_token_id");

    return v ? id_store(r, "forced_bos_token_id", v, &r->options->forced_bos_id) : TF_STATUS_OK;
}

static tf_status numbers_read(const reader *r)
{
    for (int i = 0; i < TFI_SETTING_COUNT; i++) {
        const tfi_setting *const s = &tfi_setting_table[i];
        double real = NAN;
        int64_t number = INT64_MIN;
        int flag = -1;
        tf_status status;

        if (!s->in_files) continue;
        if (s->kind == TFI_SETTING_FLOAT) {
            status = tfi_json_float(r->j, s->name, -(double)FLT_MAX, (double)FLT_MAX, &real);
        } else if (s->kind == TFI_SETTING_FLAG) {
            status = tfi_json_bool(r->j, s->name, &flag);
            if (flag >= 0) real = flag;
        } else {
            status = tfi_json_int(r->j, s->name, -INT32_MAX, INT32_MAX, &number);
            if (number != INT64_MIN) real = (double)number;
        }
        if (status < 0) return status;
        if (!isnan(real)) tfi_setting_put(r->options, s, real);
    }
    return TF_STATUS_OK;
}

/* ---- keys without effect ---- */

/* Would change results, is not built; `off` is the value that asks for nothing, as null and false do. */
static const struct {
    const char *key;
    double off;
} missing[] = {{"num_beam_groups", 1},   {"diversity_penalty", 0},     {"penalty_alpha", 0},
               {"dola_layers", NAN},     {"guidance_scale", 1},        {"constraints", NAN},
               {"force_words_ids", NAN}, {"watermarking_config", NAN}, {"prompt_lookup_num_tokens", NAN},
               {"token_healing", NAN}};

static const char *const known[] = {
    "early_stopping",     "bad_words_ids", "sequence_bias", "forced_bos_token_id",    "exponential_decay_length_penalty",
    "stop_strings",       "bos_token_id",  "pad_token_id",  "decoder_start_token_id", "transformers_version",
    "_from_model_config", "_commit_hash"};

static void missing_say(const reader *r)
{
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        const json_t *const v = find(r, missing[i].key);
        const int off = !v || json_is_false(v) || (json_is_number(v) && json_number_value(v) == missing[i].off);
        if (!off) say(r, TF_LOG_WARNING, "%s: \"%s\" is not built and is ignored", r->j.file, missing[i].key);
    }
}

static int is_known(const char *key)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i], key)) return 1;
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
        if (!strcmp(missing[i].key, key)) return 1;
    for (int i = 0; i < TFI_ID_SETTING_COUNT; i++)
        if (tfi_id_setting_table[i].key && !strcmp(tfi_id_setting_table[i].key, key)) return 1;
    for (int i = 0; i < TFI_SETTING_COUNT; i++)
        if (tfi_setting_table[i].in_files && !strcmp(tfi_setting_table[i].name, key)) return 1;
    return 0;
}

static void unknown_say(const reader *r)
{
    const char *key;
    json_t *value;
    int said = 0;

    json_object_foreach((json_t *)r->j.object, key, value)
    {
        if (json_is_null(value) || is_known(key) || said >= LOGGED_KEYS_MAX) continue;
        said++;
        say(r, TF_LOG_INFO, "%s: \"%.100s\" has no effect here", r->j.file, key);
    }
}

static tf_status read_all(const reader *r, tfi_generation *out)
{
    tf_status status;

    if ((status = numbers_read(r)) < 0 || (status = early_stopping_read(r)) < 0 || (status = id_settings_read(r)) < 0 ||
        (status = bad_words_read(r)) < 0 || (status = bias_read(r)) < 0 || (status = stop_strings_read(r)) < 0 ||
        (status = decay_read(r)) < 0 || (status = forced_bos_read(r)) < 0 ||
        (status = special_read(r, "bos_token_id", &out->bos)) < 0 ||
        (status = special_read(r, "pad_token_id", &out->pad)) < 0 ||
        (status = special_read(r, "decoder_start_token_id", &out->decoder_start)) < 0)
        return status;
    if (out->decoder_start < 0) out->decoder_start = out->bos;
    missing_say(r);
    return TF_STATUS_OK;
}

tf_status tfi_generation_read(const tfi_files *files, int32_t vocab, tfi_arena *arena, tfi_memory *memory, tf_log_fn log,
                              void *log_user, tfi_generation *out)
{
    const char *name = "generation_config.json";
    json_t *json = NULL;
    tf_status status;

    (void)memory; /* all that stays lies in the arena */
    *out = (tfi_generation){.bos = -1, .pad = -1, .decoder_start = -1};
    tf_generate_options_init(&out->options);
    status = tfi_config_read(files, name, 0, &json);
    if (status == TF_STATUS_NOT_FOUND) status = tfi_config_read(files, name = "config.json", 0, &json);
    if (status == TF_STATUS_NOT_FOUND) return TF_STATUS_OK;
    if (status < 0) return status;
    const reader r = {
        .j = {json, name}, .vocab = vocab, .arena = arena, .log = log, .log_user = log_user, .options = &out->options};
    status = read_all(&r, out);
    if (status == TF_STATUS_OK && strcmp(name, "config.json") != 0) unknown_say(&r);
    json_decref(json);
    return status < 0 && status != TF_STATUS_NOMEM ? tfi_fail_prefix(status, "%s/", files->label) : status;
}
