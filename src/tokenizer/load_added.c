/* Which tokens go on top of a vocabulary, and in which order: the named special ones, those of added_tokens_decoder, of
 * added_tokens.json, of tokenizer.json, and whatever lists of further ones the files and the class have. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "tokenizer/load.h"

/* In the order of tfi_rules: whole, BERT, RoBERTa, GPT-2, T5, XLM-R, CamemBERT, ALBERT, ByT5, BERT in Japanese, a .model file. */
const struct tfi_named tfi_named[TFI_NAMED] = {
    {"bos_token", {NULL, NULL, "<s>", "<|endoftext|>", NULL, "<s>", "<s>", "[CLS]", NULL, NULL, NULL}},
    {"eos_token", {NULL, NULL, "</s>", "<|endoftext|>", "</s>", "</s>", "</s>", "[SEP]", "</s>", NULL, NULL}},
    {"unk_token", {NULL, "[UNK]", "<unk>", "<|endoftext|>", "<unk>", "<unk>", "<unk>", "<unk>", "<unk>", "[UNK]", NULL}},
    {"sep_token", {NULL, "[SEP]", "</s>", NULL, NULL, "</s>", "</s>", "[SEP]", NULL, "[SEP]", NULL}},
    {"pad_token", {NULL, "[PAD]", "<pad>", NULL, "<pad>", "<pad>", "<pad>", "<pad>", "<pad>", "[PAD]", NULL}},
    {"cls_token", {NULL, "[CLS]", "<s>", NULL, NULL, "<s>", "<s>", "[CLS]", NULL, "[CLS]", NULL}},
    {"mask_token", {NULL, "[MASK]", "<mask>", NULL, NULL, "<mask>", "<mask>", "[MASK]", NULL, "[MASK]", NULL}}};

/* Spaces around a special token that a class gives to it where it is named by a string, or by the class. */
static void set_own_spaces(tfi_loading *l, int i)
{
    const json_t *value = json_object_get(l->config.object, tfi_named[i].key);

    if (!l->names[i].text || json_is_object(value)) return;
    if (l->rules == TFI_RULES_CAMEMBERT && i == TFI_MASK) l->names[i].lstrip = 1;
    if (l->rules == TFI_RULES_BYT5 && (i == TFI_EOS || i == TFI_UNK || i == TFI_PAD))
        l->names[i].lstrip = l->names[i].rstrip = 1;
}

/* Special tokens by name: special_tokens_map.json, where it counts, over tokenizer_config.json over the class's own. */
tf_status tfi_read_names(tfi_loading *l, int with_map)
{
    tf_status status;

    for (int i = 0; i < TFI_NAMED; i++) {
        const json_t *value = json_object_get(l->config.object, tfi_named[i].key);
        const json_t *mapped = with_map ? json_object_get(l->special_map.object, tfi_named[i].key) : NULL;
        if (mapped && !json_is_null(mapped)) {
            if ((status = tfi_read_added(mapped, l->special_map.file, tfi_named[i].key, 1, &l->names[i])) < 0) return status;
        } else if (value && !json_is_null(value)) {
            if ((status = tfi_read_added(value, l->config.file, tfi_named[i].key, 1, &l->names[i])) < 0) return status;
            /* An object there says nothing of "special", so its normal form counts unless it says otherwise. */
            const json_t *normalized = json_object_get(value, "normalized");
            if (json_is_object(value) && !json_object_get(value, "special"))
                l->names[i].normalized = !json_is_false(normalized);
        } else if (tfi_named[i].own[l->rules]) {
            const char *own = tfi_named[i].own[l->rules];
            l->names[i] = (tfi_added){.text = own, .size = (uint32_t)strlen(own)};
        }
        set_own_spaces(l, i);
        l->given[i] = (mapped && !json_is_null(mapped)) || (value && !json_is_null(value));
        l->names[i].special = 1;
    }
    return TF_STATUS_OK;
}

/* Added tokens. */

static tf_status declare(tfi_loading *l, int64_t id, const tfi_added *token)
{
    const size_t n = l->declared_count;
    const tf_status status =
        tfi_reserve(l->t->memory, (void **)&l->declared, &l->declared_capacity, n + 1, sizeof *l->declared);

    if (status < 0) return status;
    l->declared[l->declared_count++] = (struct tfi_declared){.id = id, .order = n, .token = *token};
    return TF_STATUS_OK;
}

static int compare_declared(const void *a, const void *b)
{
    const struct tfi_declared *x = a, *y = b;

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

static tf_status declare_decoder(tfi_loading *l, const json_t *decoder)
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

static int is_named(const tfi_loading *l, const tfi_added *token, int given_only)
{
    for (int i = 0; i < TFI_NAMED; i++)
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

static tf_status declare_added_file(tfi_loading *l)
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
static tf_status json_added(tfi_loading *l, int at_once)
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
static tf_status add_extra(tfi_loading *l, tfi_json from)
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
        for (int k = 0; k < TFI_NAMED && !known; k++) known = strcmp(key, tfi_named[k].key) == 0;
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

static int is_sentinel(const char *text, size_t size)
{
    static const char begin[] = "<extra_id_";

    for (size_t i = 0; i + sizeof begin - 1 <= size; i++)
        if (memcmp(text + i, begin, sizeof begin - 1) == 0) return 1;
    return 0;
}

/* A special token of a class's own. */
static tf_status add_own(tfi_loading *l, const char *text, size_t size, int is_special)
{
    const tfi_added token = {.text = text, .size = (uint32_t)size, .special = (uint8_t)is_special};

    if (tfi_trie_find(&l->t->added_ids, (const uint8_t *)text, size) != TFI_TRIE_NONE) return TF_STATUS_OK;
    return tfi_added_token(l->t, &token);
}

/* The control and user-defined pieces of a .model file that a class reads; *extra counts sentinels among them. */
static tf_status add_pieces(tfi_loading *l, int32_t *extra)
{
    size_t at = 0;
    tfi_spm_piece piece;
    tf_status status = TF_STATUS_OK;

    while (status == TF_STATUS_OK && tfi_spm_next(l->spm.file.data, l->spm.file.size, &at, &piece)) {
        if (piece.type != TFI_SPM_CONTROL && piece.type != TFI_SPM_USER_DEFINED) continue;
        *extra += is_sentinel((const char *)piece.text.data, piece.text.size);
        status = add_own(l, (const char *)piece.text.data, piece.text.size, piece.type == TFI_SPM_CONTROL);
    }
    return status;
}

static int has_list(tfi_json from)
{
    return json_object_get(from.object, "extra_special_tokens") || json_object_get(from.object, "additional_special_tokens");
}

/* What T5's, ByT5's and CamemBERT's classes and a .model file add where no file lists further tokens, be it an empty list. */
static tf_status add_class_tokens(tfi_loading *l, int legacy)
{
    static const char *const unused[] = {"<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"};
    int32_t wanted, listed = 0;
    tf_status status;

    if (has_list(l->config) || (legacy && has_list(l->special_map))) return TF_STATUS_OK;
    if ((status = tfi_extra_ids(l, &wanted)) < 0) return status;
    if (l->spm.file.data && l->rules != TFI_RULES_SPM) {
        if ((status = add_pieces(l, &listed)) < 0) return status;
    } else if (l->rules == TFI_RULES_CAMEMBERT) {
        for (int i = 0; i < 3; i++)
            if ((status = add_own(l, unused[i], strlen(unused[i]), 1)) < 0) return status;
    }
    if (listed > 0 && wanted > 0 && listed != wanted)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: extra_ids is %d, but %s has %d of them", l->config.file, (int)wanted,
                        l->spm.name, (int)listed);
    for (int32_t k = 0; k < wanted && listed == 0; k++) {
        char name[32];
        const int size = snprintf(name, sizeof name, "<extra_id_%d>", (int)k);
        if ((status = add_own(l, name, (size_t)size, 1)) < 0) return status;
    }
    return TF_STATUS_OK;
}

/* A class written in Python takes the ids that its files claim. They are the ones that follow from the vocabulary, or the file is
 * refused. */
static tf_status check_id(const tfi_loading *l, const struct tfi_declared *d)
{
    const int32_t id = tfi_token_id(l->t, d->token.text, d->token.size);

    if (id == d->id) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_UNSUPPORTED,
                    "%s: the added token \"%.64s\" says id %lld, but comes after the vocabulary as %d, which is not supported "
                    "for its class",
                    l->files->label, d->token.text, (long long)d->id, (int)id);
}

/* All added tokens in the reference's order. */
tf_status tfi_add_tokens(tfi_loading *l, int legacy)
{
    const json_t *decoder = json_object_get(l->config.object, "added_tokens_decoder");
    const int whole = l->rules == TFI_RULES_WHOLE;
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
        if (l->rules == TFI_RULES_BERT_JAPANESE && (status = check_id(l, &l->declared[i])) < 0) return status;
    }
    for (int i = 0; i < TFI_NAMED; i++) {
        if (!l->names[i].text) continue;
        if (tfi_trie_find(&l->t->added_ids, (const uint8_t *)l->names[i].text, l->names[i].size) != TFI_TRIE_NONE) continue;
        if ((status = tfi_added_token(l->t, &l->names[i])) < 0) return status;
    }
    if ((status = add_extra(l, l->config)) < 0) return status;
    if (legacy && (status = add_extra(l, l->special_map)) < 0) return status;
    return add_class_tokens(l, legacy);
}
