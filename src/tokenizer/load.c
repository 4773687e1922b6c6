/* Opening: which files and which rules a directory asks for, as transformers' AutoTokenizer decides it.
 *
 * A class of BERT's, RoBERTa's or GPT-2's (named in tokenizer_config.json or config.json, or meant by config.json's model_type)
 * is built from tokenizer_config.json's settings; of a tokenizer.json it takes only the vocabulary, the merges and the added
 * tokens, and GPT-2's the post-processor. A class that stands for "what tokenizer.json says" takes tokenizer.json whole. With
 * no class at all a vocab.txt is read as BERT and GPT-2's own encoder.json with vocab.bpe as GPT-2. Everything else is refused
 * by name. */
#define _POSIX_C_SOURCE 200809L
#include "tokenizer/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/status.h"

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

/* Whose rules hold. */
typedef enum rules { WHOLE, BERT, ROBERTA, GPT2, RULES } rules;

/* The named special tokens, in the order in which they are added, and what a class has where the configuration says nothing. */
enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK, NAMED };
static const struct {
    const char *key, *own[RULES];
} named[NAMED] = {{"bos_token", {NULL, NULL, "<s>", "<|endoftext|>"}},
                  {"eos_token", {NULL, NULL, "</s>", "<|endoftext|>"}},
                  {"unk_token", {NULL, "[UNK]", "<unk>", "<|endoftext|>"}},
                  {"sep_token", {NULL, "[SEP]", "</s>", NULL}},
                  {"pad_token", {NULL, "[PAD]", "<pad>", NULL}},
                  {"cls_token", {NULL, "[CLS]", "<s>", NULL}},
                  {"mask_token", {NULL, "[MASK]", "<mask>", NULL}}};

/* Classes ("Fast" at the end was cut off), and the model types that have one where no class is named. */
static const struct {
    const char *name;
    rules rules;
} classes[] = {{"BertTokenizer", BERT},        {"DistilBertTokenizer", BERT}, {"ElectraTokenizer", BERT},
               {"MobileBertTokenizer", BERT},  {"LayoutLMTokenizer", BERT},   {"LxmertTokenizer", BERT},
               {"SqueezeBertTokenizer", BERT}, {"RobertaTokenizer", ROBERTA}, {"GPT2Tokenizer", GPT2},
               {"PreTrainedTokenizer", WHOLE}, {"TokenizersBackend", WHOLE}},
  types[] = {{"bert", BERT},   {"distilbert", BERT},  {"electra", BERT},    {"mobilebert", BERT}, {"layoutlm", BERT},
             {"lxmert", BERT}, {"squeezebert", BERT}, {"roberta", ROBERTA}, {"gpt2", GPT2}};

/* The files of an opening, parsed. json_t members may be NULL. */
typedef struct loading {
    tf_tokenizer *t;
    tfi_files *files;
    tfi_json config;      /* tokenizer_config.json */
    tfi_json model;       /* config.json */
    tfi_json tokens;      /* tokenizer.json */
    tfi_json special_map; /* special_tokens_map.json */
    tfi_json added;       /* added_tokens.json */
    tfi_file vocab;       /* vocab.txt; data NULL if there is none */
    const char *vocab_name;
    tfi_json bpe_vocab; /* vocab.json or encoder.json */
    tfi_file merges;    /* merges.txt or vocab.bpe; data NULL if there is none */
    const char *merges_name;
    rules rules;
    int is_guess; /* rules: no file names a class, or a model type that has one */
    tfi_entries entries;
    tfi_added names[NAMED];    /* text NULL: not named */
    uint8_t given[NAMED];      /* named by a file, not by the class */
    struct declared *declared; /* added tokens with the ids they claim, which decide the order only */
    size_t declared_count, declared_capacity;
} loading;

struct declared {
    int64_t id;
    size_t order;
    tfi_added token;
};

/* Files. */

static tf_status read_json(loading *l, const char *name, tfi_json *out)
{
    tfi_file file;
    json_t *root;
    tf_status status = l->files->open(l->files, name, &file);

    *out = (tfi_json){.file = name};
    if (status == TF_STATUS_NOT_FOUND) return TF_STATUS_OK;
    if (status < 0) return status;
    status = tfi_json_parse((const char *)file.data, file.size, name, &root);
    l->files->close(l->files, &file);
    if (status < 0) return tfi_fail_prefix(status, "%s/", l->files->label);
    out->object = root;
    if (!json_is_object(root)) return tfi_fail(TF_STATUS_CORRUPT, "%s/%s: the root is not an object", l->files->label, name);
    return TF_STATUS_OK;
}

static void close_json(tfi_json *j)
{
    json_decref((json_t *)j->object);
    j->object = NULL;
}

static void loading_close(loading *l)
{
    close_json(&l->config);
    close_json(&l->model);
    close_json(&l->tokens);
    close_json(&l->special_map);
    close_json(&l->added);
    close_json(&l->bpe_vocab);
    if (l->merges.data) l->files->close(l->files, &l->merges);
    if (l->vocab.data) l->files->close(l->files, &l->vocab);
    tfi_free(l->t->memory, l->declared, l->declared_capacity * sizeof *l->declared);
    tfi_entries_close(&l->entries);
}

/* Settings. */

static tf_status read_limits(loading *l)
{
    tf_tokenizer *t = l->t;
    double limit = 1e30;
    const char *side = NULL, *direction = NULL;
    const tfi_json truncation = {.object = json_object_get(l->tokens.object, "truncation"), .file = l->tokens.file};
    tf_status status;

    if ((status = tfi_json_float(l->config, "max_len", 0, 1e308, &limit)) < 0) return status;
    if ((status = tfi_json_float(l->config, "model_max_length", 0, 1e308, &limit)) < 0) return status;
    t->model_max_length = limit < INT32_MAX ? (int32_t)limit : INT32_MAX;
    if ((status = tfi_json_bool(l->config, "clean_up_tokenization_spaces", &t->clean_up)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "split_special_tokens", &t->split_special)) < 0) return status;
    if ((status = tfi_json_string(l->config, "truncation_side", &side)) < 0) return status;
    /* Of tokenizer.json's truncation only the side is kept, and only where tokenizer_config.json says nothing. */
    if (json_is_object(truncation.object) && (status = tfi_json_string(truncation, "direction", &direction)) < 0) return status;
    if (side && strcmp(side, "left") != 0 && strcmp(side, "right") != 0)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"truncation_side\" is \"%.32s\", neither left nor right", l->config.file,
                        side);
    t->truncation_side = side ? strcmp(side, "left") == 0 : direction && strcmp(direction, "Left") == 0;
    return TF_STATUS_OK;
}

static tf_status read_bert_settings(loading *l)
{
    tf_tokenizer *t = l->t;
    int strip = -1;
    tf_status status;

    t->clean_text = t->split_cjk = t->lowercase = t->decoder_cleans = 1;
    t->decoder = TFI_DECODER_WORDPIECE;
    if ((status = tfi_json_bool(l->config, "do_lower_case", &t->lowercase)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "tokenize_chinese_chars", &t->split_cjk)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "strip_accents", &strip)) < 0) return status;
    t->strip_accents = strip < 0 ? t->lowercase : strip;
    return TF_STATUS_OK;
}

/* Of RoBERTa's and GPT-2's classes. RoBERTa's own post-processor comes with it. */
static tf_status read_bpe_settings(loading *l)
{
    tfi_bpe *b = &l->t->bpe;
    tf_status status;

    l->t->decoder = TFI_DECODER_BYTES;
    b->use_pattern = 1;
    b->trim = l->rules == ROBERTA;
    if ((status = tfi_json_bool(l->config, "add_prefix_space", &b->prefix_space)) < 0) return status;
    if (l->rules == ROBERTA && (status = tfi_json_bool(l->config, "trim_offsets", &b->trim)) < 0) return status;
    b->trim_expects_prefix = b->prefix_space;
    return TF_STATUS_OK;
}

/* Special tokens by name: special_tokens_map.json, where it counts, over tokenizer_config.json over the class's own. */
static tf_status read_names(loading *l, int with_map)
{
    tf_status status;

    for (int i = 0; i < NAMED; i++) {
        const json_t *value = json_object_get(l->config.object, named[i].key);
        const json_t *mapped = with_map ? json_object_get(l->special_map.object, named[i].key) : NULL;
        if (mapped && !json_is_null(mapped)) {
            if ((status = tfi_read_added(mapped, l->special_map.file, named[i].key, 1, &l->names[i])) < 0) return status;
        } else if (value && !json_is_null(value)) {
            if ((status = tfi_read_added(value, l->config.file, named[i].key, 1, &l->names[i])) < 0) return status;
            /* An object there says nothing of "special", so its normal form counts unless it says otherwise. */
            const json_t *normalized = json_object_get(value, "normalized");
            if (json_is_object(value) && !json_object_get(value, "special"))
                l->names[i].normalized = !json_is_false(normalized);
        } else if (named[i].own[l->rules]) {
            const char *own = named[i].own[l->rules];
            l->names[i] = (tfi_added){.text = own, .size = (uint32_t)strlen(own)};
        }
        l->given[i] = (mapped && !json_is_null(mapped)) || (value && !json_is_null(value));
        l->names[i].special = 1;
    }
    return TF_STATUS_OK;
}

/* Added tokens. */

static tf_status declare(loading *l, int64_t id, const tfi_added *token)
{
    const size_t n = l->declared_count;
    const tf_status status =
        tfi_reserve(l->t->memory, (void **)&l->declared, &l->declared_capacity, n + 1, sizeof *l->declared);

    if (status < 0) return status;
    l->declared[l->declared_count++] = (struct declared){.id = id, .order = n, .token = *token};
    return TF_STATUS_OK;
}

static int compare_declared(const void *a, const void *b)
{
    const struct declared *x = a, *y = b;

    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* A number of digits, as JSON keys write ids; -1 if it is none or too large. */
static int64_t id_of_key(const char *key)
{
    int64_t id = 0;

    for (const char *p = key; *p; p++) {
        if (*p < '0' || *p > '9' || id > TFI_TOKEN_ID_MAX) return -1;
        id = id * 10 + (*p - '0');
    }
    return *key && id <= TFI_TOKEN_ID_MAX ? id : -1;
}

static tf_status declare_decoder(loading *l, const json_t *decoder)
{
    const char *key;
    json_t *value;
    tfi_added token;
    tf_status status;

    if (!json_is_object(decoder))
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"added_tokens_decoder\" is not an object", l->config.file);
    json_object_foreach((json_t *)decoder, key, value)
    {
        const int64_t id = id_of_key(key);
        if (id < 0 || !json_is_object(value))
            return tfi_fail(TF_STATUS_CORRUPT, "%s: added_tokens_decoder: \"%.64s\" is not an id with an object",
                            l->config.file, key);
        if ((status = tfi_read_added(value, l->config.file, key, 0, &token)) < 0) return status;
        if ((status = declare(l, id, &token)) < 0) return status;
    }
    return TF_STATUS_OK;
}

static int is_same(const tfi_added *a, const tfi_added *b)
{
    return a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
}

static int is_named(const loading *l, const tfi_added *token, int given_only)
{
    for (int i = 0; i < NAMED; i++)
        if (l->names[i].text && (l->given[i] || !given_only) && is_same(&l->names[i], token)) return 1;
    return 0;
}

/* The list of further special tokens in tokenizer_config.json or special_tokens_map.json, under its new or its old name. */
static const json_t *extra_list(tfi_json from)
{
    const json_t *list = json_object_get(from.object, "extra_special_tokens");
    return list && !json_is_null(list) ? list : json_object_get(from.object, "additional_special_tokens");
}

static int is_extra(tfi_json from, const tfi_added *token)
{
    const json_t *list = extra_list(from), *value;
    size_t i;

    json_array_foreach(list, i, value)
    {
        const json_t *content = json_is_object(value) ? json_object_get(value, "content") : value;
        if (json_string_length(content) == token->size && memcmp(json_string_value(content), token->text, token->size) == 0)
            return 1;
    }
    return 0;
}

static tf_status declare_added_file(loading *l)
{
    const char *key;
    json_t *value;
    tf_status status;

    json_object_foreach((json_t *)l->added.object, key, value)
    {
        tfi_added token = {.text = key, .size = (uint32_t)strlen(key)};
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > TFI_TOKEN_ID_MAX)
            return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%.64s\" has no id in [0, %d]", l->added.file, key, TFI_TOKEN_ID_MAX);
        token.special = (uint8_t)(is_named(l, &token, 1) || is_extra(l->config, &token) || is_extra(l->special_map, &token));
        token.normalized = !token.special;
        if ((status = declare(l, json_integer_value(value), &token)) < 0) return status;
    }
    return TF_STATUS_OK;
}

/* A token that the vocabulary lacks gets the next free id whatever the file says, as in the reference; tell if they differ. */
static void warn_of_id(const tf_tokenizer *t, const char *file, const tfi_added *token, int64_t claimed)
{
    const int32_t id = tfi_token_id(t, token->text, token->size);
    char text[256];

    if (!t->log || claimed < 0 || id == claimed) return;
    snprintf(text, sizeof text, "%s: the added token \"%.64s\" says id %lld and gets %d", file, token->text, (long long)claimed,
             (int)id);
    t->log(t->log_user, TF_LOG_WARNING, text);
}

/* The added_tokens of tokenizer.json: declared, or, for a tokenizer.json that is taken whole, added at once. */
static tf_status json_added(loading *l, int at_once)
{
    const json_t *list = json_object_get(l->tokens.object, "added_tokens"), *value;
    tfi_added token;
    size_t i;
    tf_status status;

    if (!list || json_is_null(list)) return TF_STATUS_OK;
    if (!json_is_array(list)) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"added_tokens\" is not an array", l->tokens.file);
    json_array_foreach(list, i, value)
    {
        int64_t id = -1;
        const tfi_json j = {.object = value, .file = l->tokens.file};
        if ((status = tfi_read_added(value, l->tokens.file, "added_tokens", 0, &token)) < 0) return status;
        if (json_is_object(value) && (status = tfi_json_int(j, "id", 0, TFI_TOKEN_ID_MAX, &id)) < 0) return status;
        status = at_once ? tfi_added_token(l->t, &token) : declare(l, id < 0 ? (int64_t)i : id, &token);
        if (status < 0) return tfi_fail_prefix(status, "%s: added_tokens: ", l->tokens.file);
        if (at_once) warn_of_id(l->t, l->tokens.file, &token, id);
    }
    return TF_STATUS_OK;
}

/* additional_special_tokens, extra_special_tokens, and every "..._token" that has no name of its own. */
static tf_status add_extra(loading *l, tfi_json from)
{
    const json_t *list = extra_list(from);
    const char *key;
    json_t *value;
    size_t i;
    tfi_added token;
    tf_status status;

    json_object_foreach((json_t *)from.object, key, value)
    {
        const size_t n = strlen(key);
        int known = n < 6 || strcmp(key + n - 6, "_token") != 0 ||
                    !(json_is_string(value) || json_object_get(value, "content"));
        for (int k = 0; k < NAMED && !known; k++) known = strcmp(key, named[k].key) == 0;
        if (known) continue;
        if ((status = tfi_read_added(value, from.file, key, 1, &token)) < 0) return status;
        if (tfi_trie_find(&l->t->added_ids, (const uint8_t *)token.text, token.size) != TFI_TRIE_NONE) continue;
        if ((status = tfi_added_token(l->t, &token)) < 0) return status;
    }
    if (json_is_object(list)) {
        json_object_foreach((json_t *)list, key, value)
        {
            if ((status = tfi_read_added(value, from.file, key, 1, &token)) < 0) return status;
            token.special = 1;
            if ((status = tfi_added_token(l->t, &token)) < 0) return status;
        }
        return TF_STATUS_OK;
    }
    json_array_foreach(list, i, value)
    {
        if ((status = tfi_read_added(value, from.file, "additional_special_tokens", 1, &token)) < 0) return status;
        if (tfi_trie_find(&l->t->added_ids, (const uint8_t *)token.text, token.size) != TFI_TRIE_NONE) continue;
        if ((status = tfi_added_token(l->t, &token)) < 0) return status;
    }
    return TF_STATUS_OK;
}

/* All added tokens in the reference's order. */
static tf_status add_tokens(loading *l, int whole, int legacy)
{
    const json_t *decoder = json_object_get(l->config.object, "added_tokens_decoder");
    tf_status status;

    if ((status = tfi_trie_open(&l->t->added_ids, l->t->memory, 64)) < 0) return status;
    if (whole && (status = json_added(l, 1)) < 0) return status;
    if (!legacy) {
        if ((status = declare_decoder(l, decoder)) < 0) return status;
    } else {
        if ((status = declare_added_file(l)) < 0) return status;
        if (!whole && (status = json_added(l, 0)) < 0) return status;
    }
    if (l->declared_count) qsort(l->declared, l->declared_count, sizeof *l->declared, compare_declared);
    for (size_t i = 0; i < l->declared_count; i++) {
        if (i + 1 < l->declared_count && l->declared[i + 1].id == l->declared[i].id) continue; /* the last one counts */
        l->declared[i].token.special |= is_named(l, &l->declared[i].token, 0);
        if ((status = tfi_added_token(l->t, &l->declared[i].token)) < 0) return status;
    }
    for (int i = 0; i < NAMED; i++) {
        if (!l->names[i].text) continue;
        if (tfi_trie_find(&l->t->added_ids, (const uint8_t *)l->names[i].text, l->names[i].size) != TFI_TRIE_NONE) continue;
        if ((status = tfi_added_token(l->t, &l->names[i])) < 0) return status;
    }
    if ((status = add_extra(l, l->config)) < 0) return status;
    return legacy ? add_extra(l, l->special_map) : TF_STATUS_OK;
}

/* After the vocabulary and the added tokens: strings by id. */

static tf_status tokens_by_id(tf_tokenizer *t, const tfi_entries *entries)
{
    const char **text;
    size_t total = 0;
    int32_t largest = -1;

    for (size_t i = 0; i < entries->count; i++)
        if (entries->data[i].id > largest) largest = entries->data[i].id;
    for (int32_t i = 0; i < t->added_count; i++)
        if (t->added[i].id > largest) largest = t->added[i].id;
    t->vocab_size = largest + 1;
    const size_t n = (size_t)t->vocab_size;
    if (!(t->token_flags = tfi_arena_alloc(&t->arena, n + 1))) return TF_STATUS_NOMEM;
    if (!(t->text_begin = tfi_arena_alloc(&t->arena, (n + 1) * sizeof *t->text_begin))) return TF_STATUS_NOMEM;
    if (!(text = tfi_zalloc(t->memory, n * sizeof *text))) return TF_STATUS_NOMEM;
    /* text_begin holds sizes first. */
    for (size_t i = 0; i < entries->count; i++) {
        const tfi_entry *e = &entries->data[i];
        if (!e->text) continue;
        text[e->id] = e->text;
        t->text_begin[e->id] = e->size;
        t->token_flags[e->id] = TFI_TOKEN_PRESENT;
    }
    for (int32_t i = 0; i < t->added_count; i++) {
        const tfi_added *a = &t->added[i];
        const int32_t same = tfi_trie_find(&t->added_ids, (const uint8_t *)a->shown, a->shown_size);
        text[a->id] = a->shown;
        t->text_begin[a->id] = a->shown_size;
        /* The reference asks whether what is shown is a special token. */
        t->token_flags[a->id] = TFI_TOKEN_PRESENT | (same != TFI_TRIE_NONE && t->added[same].special ? TFI_TOKEN_SPECIAL : 0);
    }
    for (size_t i = 0; i < n; i++) total += t->text_begin[i] + 1;
    if (total <= UINT32_MAX) t->text = tfi_arena_alloc(&t->arena, total + 1);
    for (size_t i = 0, at = 0; t->text && i < n; i++) {
        const uint32_t size = t->text_begin[i];
        if (size) memcpy(t->text + at, text[i], size);
        t->text_begin[i] = (uint32_t)at;
        at += size + 1;
    }
    t->text_begin[n] = (uint32_t)total;
    tfi_free(t->memory, text, n * sizeof *text);
    if (total > UINT32_MAX) return tfi_fail(TF_STATUS_UNSUPPORTED, "a vocabulary of %zu bytes", total);
    return t->text ? TF_STATUS_OK : TF_STATUS_NOMEM;
}

/* The ids of the named special tokens; a tokenizer.json that names none has BERT's or RoBERTa's if they are in its vocabulary.
 */
static void set_ids(loading *l)
{
    tf_tokenizer *t = l->t;
    int32_t *const ids[NAMED] = {&t->bos_id, &t->eos_id, &t->unk_id, &t->sep_id, &t->pad_id, &t->cls_id, &t->mask_id};

    for (int i = 0; i < NAMED; i++) {
        const char *usual = l->rules != WHOLE || i == UNK ? NULL : named[i].own[t->is_bpe ? ROBERTA : BERT];
        if (i == UNK && !t->is_bpe) continue; /* the model's */
        *ids[i] = TFI_TRIE_NONE;
        if (l->names[i].text) *ids[i] = tfi_token_id(t, l->names[i].text, l->names[i].size);
        else if (usual) *ids[i] = tfi_token_id(t, usual, strlen(usual));
    }
}

tf_status tfi_template_set(tf_tokenizer *t, tfi_template *template, const tfi_piece *pieces, int32_t count)
{
    if (!(template->pieces = tfi_arena_alloc(&t->arena, (size_t)count * sizeof *pieces + 1))) return TF_STATUS_NOMEM;
    template->count = count;
    template->specials = 0;
    for (int32_t i = 0; i < count; i++) {
        template->pieces[i] = pieces[i];
        template->specials += pieces[i].id >= 0;
    }
    return TF_STATUS_OK;
}

/* The templates of BERT's and RoBERTa's classes. */
static tf_status class_template(loading *l)
{
    tf_tokenizer *t = l->t;

    if (t->cls_id < 0 || t->sep_id < 0)
        return tfi_fail(TF_STATUS_CORRUPT, "tokenizer_config.json: \"%s\" is empty", t->cls_id < 0 ? "cls_token" : "sep_token");
    if (l->rules == ROBERTA) return tfi_roberta_template(t, t->cls_id, t->sep_id);
    const tfi_piece pieces[] = {{t->cls_id, 0}, {TFI_PIECE_FIRST, 0}, {t->sep_id, 0}, {TFI_PIECE_SECOND, 1}, {t->sep_id, 1}};
    const tf_status status = tfi_template_set(t, &t->single, pieces, 3);

    return status < 0 ? status : tfi_template_set(t, &t->pair, pieces, 5);
}

/* Of GPT-2's class without a tokenizer.json, beside which add_bos_token and add_eos_token count for nothing. */
static tf_status bos_eos_template(loading *l)
{
    tf_tokenizer *t = l->t;
    int bos = 0, eos = 0;
    int32_t n = 0, single;
    tfi_piece pieces[6];
    tf_status status;

    if ((status = tfi_json_bool(l->config, "add_bos_token", &bos)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "add_eos_token", &eos)) < 0) return status;
    for (int32_t second = 0; second < 2; second++) {
        if (bos && l->names[BOS].text) pieces[n++] = (tfi_piece){t->bos_id, second};
        pieces[n++] = (tfi_piece){second ? TFI_PIECE_SECOND : TFI_PIECE_FIRST, second};
        if (eos && l->names[EOS].text) pieces[n++] = (tfi_piece){t->eos_id, second};
        if (!second) single = n;
    }
    if ((status = tfi_template_set(t, &t->single, pieces, single)) < 0) return status;
    return tfi_template_set(t, &t->pair, pieces, n);
}

static tf_status read_template(loading *l)
{
    if (l->rules == BERT || l->rules == ROBERTA) return class_template(l);
    return l->tokens.object ? tfi_read_json_template(l->t, l->tokens) : bos_eos_template(l);
}

/* The model's unknown token must be in its vocabulary: without it most texts have no tokens at all. */
static tf_status set_model(tf_tokenizer *t, const char *unk, const char *file)
{
    t->unk_id = tfi_trie_find(&t->vocab, (const uint8_t *)unk, strlen(unk));
    if (t->unk_id == TFI_TRIE_NONE)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: the vocabulary has no unknown token \"%.64s\"", file, unk);
    t->inner_node = tfi_trie_walk(&t->vocab, (const uint8_t *)t->prefix, t->prefix_size);
    t->has_inner = t->inner_node != TFI_TRIE_ROOT || t->prefix_size == 0;
    return TF_STATUS_OK;
}

/* The vocabulary with its rules: tokenizer.json's, or those of the class over whichever files there are. */
static tf_status read_model(loading *l)
{
    tf_tokenizer *t = l->t;
    const int whole = l->rules == WHOLE, is_bpe = l->rules == ROBERTA || l->rules == GPT2;
    const char *unk = !whole && l->names[UNK].text ? l->names[UNK].text : "[UNK]";
    tf_status status;

    if (l->tokens.object) {
        status = tfi_read_json_model(t, l->tokens, whole, &unk, &l->entries);
        if (status == TF_STATUS_OK && !whole && t->is_bpe != is_bpe)
            status = tfi_fail(TF_STATUS_UNSUPPORTED, "%s: the model is %s, which is not supported for its class",
                              l->tokens.file, t->is_bpe ? "BPE" : "WordPiece");
    } else if (is_bpe) {
        t->is_bpe = 1;
        status = tfi_read_vocab_json(t, l->bpe_vocab.object, l->bpe_vocab.file, &l->entries);
        if (status == TF_STATUS_OK) status = tfi_read_merges_txt(t, &l->merges, l->merges_name);
    } else {
        status = tfi_read_vocab_txt(t, &l->vocab, l->vocab_name, &l->entries);
    }
    if (status < 0) return status;
    if (whole) status = tfi_read_json_pipeline(t, l->tokens);
    else status = is_bpe ? read_bpe_settings(l) : read_bert_settings(l);
    if (status < 0) return status;
    if (!t->is_bpe) return set_model(t, unk, l->tokens.object ? l->tokens.file : l->vocab_name);
    int cleans = 0;
    status = tfi_json_bool(l->config, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", &cleans);
    t->never_cleans = !cleans;
    if (l->entries.count == 0) return tfi_fail(TF_STATUS_CORRUPT, "%s: the vocabulary is empty", l->files->label);
    return status;
}

/* Everything but the choice of files. */
static tf_status build(loading *l)
{
    tf_tokenizer *t = l->t;
    const int legacy = !json_is_object(json_object_get(l->config.object, "added_tokens_decoder"));
    tf_status status;

    t->prefix = t->decoder_prefix = "##";
    t->prefix_size = t->decoder_prefix_size = 2;
    t->word_chars_max = 100;
    if ((status = tfi_unicode_init(&t->unicode, &t->arena)) < 0) return status;
    if ((status = read_limits(l)) < 0 || (status = read_names(l, legacy)) < 0) return status;
    if ((status = read_model(l)) < 0) return status;
    tfi_words_init(t);
    if ((status = add_tokens(l, l->rules == WHOLE, legacy)) < 0 || (status = tfi_added_finish(t)) < 0) return status;
    if ((status = tokens_by_id(t, &l->entries)) < 0) return status;
    if (t->is_bpe && (status = tfi_bpe_finish(t)) < 0) return status;
    set_ids(l);
    return read_template(l);
}

/* The choice. */

static tf_status nothing_here(tfi_files *files)
{
    static const char *const others[] = {"vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
                                         "tokenizer.model"};
    tfi_file file;

    for (size_t i = 0; i < COUNT(others); i++) {
        const tf_status status = files->open(files, others[i], &file);
        if (status == TF_STATUS_NOT_FOUND) continue;
        if (status < 0) return status;
        files->close(files, &file);
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: its tokenizer is a %s, of a kind or class that is not supported",
                        files->label, others[i]);
    }
    return tfi_fail(TF_STATUS_NOT_FOUND, "%s: neither tokenizer.json nor vocab.txt nor vocab.json", files->label);
}

/* Refuse tokenizers that split into words or pieces by other means, whatever their class. */
static tf_status check_kinds(loading *l)
{
    static const struct {
        const char *key, *fine;
    } kinds[] = {{"word_tokenizer_type", "basic"}, {"subword_tokenizer_type", "wordpiece"}};

    for (size_t i = 0; i < COUNT(kinds); i++) {
        const char *kind = NULL;
        const tf_status status = tfi_json_string(l->config, kinds[i].key, &kind);
        if (status < 0) return status;
        if (kind && strcmp(kind, kinds[i].fine) != 0)
            return tfi_fail(TF_STATUS_UNSUPPORTED, "%s/%s: %s is \"%.64s\", which is not supported", l->files->label,
                            l->config.file, kinds[i].key, kind);
    }
    return TF_STATUS_OK;
}

static int is_bpe_json(tfi_json tokens)
{
    const json_t *model = json_object_get(tokens.object, "model"), *type = json_object_get(model, "type");
    return type ? json_is_string(type) && strcmp(json_string_value(type), "BPE") == 0
                : json_object_get(model, "merges") != NULL;
}

/* Whose rules hold: the class's, else those of the model's type, else what the files suggest. */
static tf_status choose(loading *l)
{
    const char *class = NULL, *type = NULL;
    tf_status status;

    if ((status = tfi_json_string(l->model, "tokenizer_class", &class)) < 0) return status;
    if ((status = tfi_json_string(l->config, "tokenizer_class", &class)) < 0) return status;
    if ((status = tfi_json_string(l->model, "model_type", &type)) < 0) return status;
    if ((status = check_kinds(l)) < 0) return status;
    if (class) {
        const size_t n = strlen(class), cut = n >= 4 && strcmp(class + n - 4, "Fast") == 0 ? n - 4 : n;
        for (size_t i = 0; i < COUNT(classes); i++)
            if (strlen(classes[i].name) == cut && memcmp(classes[i].name, class, cut) == 0)
                return l->rules = classes[i].rules, TF_STATUS_OK;
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: its tokenizer is a %.64s, which is not supported", l->files->label, class);
    }
    for (size_t i = 0; type && i < COUNT(types); i++)
        if (strcmp(types[i].name, type) == 0) return l->rules = types[i].rules, TF_STATUS_OK;
    if (type && (l->tokens.object ? is_bpe_json(l->tokens) : l->vocab.data != NULL))
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: the tokenizer of model_type \"%.64s\" is not supported", l->files->label,
                        type);
    l->rules = l->tokens.object ? WHOLE : l->vocab.data || type ? BERT : GPT2;
    l->is_guess = 1;
    return TF_STATUS_OK;
}

/* Open vocab.json with merges.txt, or GPT-2's files under their first names. Without a class only the latter say whose they
 * are. */
static tf_status open_bpe_files(loading *l)
{
    static const char *const names[2][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
    tf_status status;

    for (int i = l->is_guess; i < 2; i++) {
        if ((status = read_json(l, names[i][0], &l->bpe_vocab)) < 0) return status;
        if (!l->bpe_vocab.object) continue;
        l->merges_name = names[i][1];
        return tfi_files_need(l->files, names[i][1], &l->merges);
    }
    return nothing_here(l->files);
}

static tf_status load_directory(loading *l)
{
    tf_status status;

    l->vocab_name = "vocab.txt";
    if ((status = read_json(l, "tokenizer_config.json", &l->config)) < 0 ||
        (status = read_json(l, "config.json", &l->model)) < 0)
        return status;
    if ((status = read_json(l, "tokenizer.json", &l->tokens)) < 0) return status;
    if ((status = read_json(l, "special_tokens_map.json", &l->special_map)) < 0) return status;
    if ((status = read_json(l, "added_tokens.json", &l->added)) < 0) return status;
    status = l->files->open(l->files, "vocab.txt", &l->vocab);
    if (status < 0 && status != TF_STATUS_NOT_FOUND) return status;
    if ((status = choose(l)) < 0) return status;
    if (l->tokens.object) return build(l);
    if (l->rules == WHOLE) l->rules = BERT; /* all that a vocab.txt can be */
    if (l->rules == ROBERTA || l->rules == GPT2) status = open_bpe_files(l);
    else status = l->vocab.data ? TF_STATUS_OK : nothing_here(l->files);
    return status < 0 ? status : build(l);
}

static tf_status load_file(loading *l, const char *name)
{
    const size_t n = strlen(name);
    tf_status status;

    l->vocab_name = name;
    if (n >= 5 && strcmp(name + n - 5, ".json") == 0) {
        if ((status = read_json(l, name, &l->tokens)) < 0) return status;
        l->rules = WHOLE;
        return build(l);
    }
    l->rules = BERT;
    status = tfi_files_need(l->files, name, &l->vocab);
    return status < 0 ? status : build(l);
}

/* Fill *t, or close it. `name`: the one file that is wanted, or NULL. */
static tf_status load(tf_tokenizer *t, tfi_files *files, const char *name, tf_tokenizer **out)
{
    loading l = {.t = t, .files = files, .entries = {.memory = t->memory}};

    t->arena.memory = t->memory;
    const tf_status status = name ? load_file(&l, name) : load_directory(&l);
    loading_close(&l);
    if (status < 0) tf_tokenizer_close(t);
    else *out = t;
    return status;
}

tf_status tfi_tokenizer_open_files(tfi_files *files, tfi_memory *memory, tf_log_fn log, void *log_user, tf_tokenizer **out)
{
    tf_tokenizer *t = tfi_zalloc(memory, sizeof *t);

    *out = NULL;
    if (!t) return TF_STATUS_NOMEM;
    t->memory = memory;
    t->log = log;
    t->log_user = log_user;
    return load(t, files, NULL, out);
}

/* Split a file's path into its directory and its name. */
static tf_status open_parent(const char *path, tfi_files *files, const char **name)
{
    char directory[sizeof files->label];
    const char *slash = strrchr(path, '/');
    const size_t n = slash ? (size_t)(slash - path) : 0;

    *name = slash ? slash + 1 : path;
    if (n + 2 > sizeof directory) return tfi_fail(TF_STATUS_INVALID, "the path has %zu bytes, too long", strlen(path));
    memcpy(directory, path, n);
    strcpy(directory + n, slash ? n ? "" : "/" : ".");
    return tfi_files_directory(files, directory);
}

tf_status tfi_tokenizer_open_path(const char *path, const tf_tokenizer_options *options, tf_tokenizer **out)
{
    const char *name = NULL;
    tfi_files files;
    tfi_memory memory;
    struct stat st;
    tf_tokenizer *t;
    tf_status status;

    if (stat(path, &st) < 0)
        return tfi_fail(errno == ENOENT || errno == ENOTDIR ? TF_STATUS_NOT_FOUND : TF_STATUS_IO, "%s: %s", path,
                        strerror(errno));
    status = S_ISDIR(st.st_mode) ? tfi_files_directory(&files, path) : open_parent(path, &files, &name);
    if (status < 0) return status;
    tfi_memory_init(&memory, options->allocator, TF_UNSET);
    if (!(t = tfi_zalloc(&memory, sizeof *t))) return TF_STATUS_NOMEM;
    tfi_memory_init(&t->own, options->allocator, TF_UNSET);
    t->memory = &t->own;
    t->log = options->log;
    t->log_user = options->log_user;
    return load(t, &files, name, out);
}
