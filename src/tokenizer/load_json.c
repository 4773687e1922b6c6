/* tokenizer.json. What the reference would do otherwise than this module is refused by name. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/load.h"

static tf_status expect(const json_t *v, json_type type, const char *file, const char *key, const char *what)
{
    if (v && json_typeof(v) == type) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %s, %s is expected", file, key, v ? "of another type" : "missing", what);
}

static tf_status refuse(tfi_json root, const char *key, const char *type)
{
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: %s is %s, which is not supported", root.file, key, type ? type : "absent");
}

/* Model. */

/* A pair's number as an id, or -1. */
static int32_t member_id(const tfi_json_pair *pair)
{
    int32_t id = 0;

    for (size_t i = 0; i < pair->number_size && id <= TFI_TOKEN_ID_MAX; i++) {
        if (pair->number[i] < '0' || pair->number[i] > '9') return -1;
        id = id * 10 + (pair->number[i] - '0');
    }
    return pair->number_size > 0 && id <= TFI_TOKEN_ID_MAX ? id : -1;
}

static tf_status bad_token(const char *file, const char *text, size_t size, const char *what)
{
    return tfi_fail(TF_STATUS_CORRUPT, "%s: the vocabulary: \"%.*s\" %s", file, (int)(size < 64 ? size : 64), text ? text : "",
                    what);
}

tf_status tfi_list_text(tf_tokenizer *t, const tfi_json_text *text, tfi_entry *out)
{
    *out = (tfi_entry){.text = text->data, .size = (uint32_t)text->size};
    if (text->size > INT32_MAX) return tfi_fail(TF_STATUS_UNSUPPORTED, "an endless token");
    if (!text->has_escapes) return TF_STATUS_OK;
    char *plain = tfi_arena_alloc(&t->arena, text->size + 1);
    if (!plain) return TF_STATUS_NOMEM;
    const int64_t size = tfi_json_unescape(text, plain);
    if (size < 0)
        return tfi_fail(TF_STATUS_CORRUPT, "a wrong escape in \"%.*s\"", text->size < 64 ? (int)text->size : 64, text->data);
    *out = (tfi_entry){.text = plain, .size = (uint32_t)size};
    return TF_STATUS_OK;
}

tf_status tfi_check_list(const tfi_json_list *list, const char *file, const char *key, int is_object)
{
    const size_t size = (size_t)(list->end - list->begin);
    uint32_t bad = 0;

    if (!list->begin || list->is_object != is_object)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is not an %s", file, key, is_object ? "object" : "array");
    const size_t good = tfi_utf8_valid((const uint8_t *)list->begin, size, &bad);
    return good == size ? TF_STATUS_OK : tfi_fail(TF_STATUS_CORRUPT, "%s: %s: not UTF-8 at its byte %zu", file, key, good);
}

tf_status tfi_open_vocab(tfi_entries *out, const char *file, int is_object)
{
    const tfi_json_list *list = &out->lists[TFI_LIST_VOCAB];
    const tf_status status = tfi_check_list(list, file, "model.vocab", is_object);

    if (status < 0) return status;
    return tfi_reserve(out->memory, (void **)&out->data, &out->capacity, tfi_json_list_bound(list), sizeof *out->data);
}

tf_status tfi_read_vocab_json(tf_tokenizer *t, const char *file, tfi_entries *out)
{
    tfi_json_list list = out->lists[TFI_LIST_VOCAB];
    tfi_json_pair pair;
    tfi_entry e;
    tf_status status = tfi_open_vocab(out, file, 1);
    int more;
    int32_t *id;

    if (status < 0) return status;
    const uint32_t nodes = out->capacity < TFI_TOKEN_ID_MAX / 4 ? (uint32_t)out->capacity * 3 : TFI_TOKEN_ID_MAX;
    if ((status = tfi_trie_open(&t->vocab, t->memory, nodes)) < 0) return status;
    while ((more = tfi_json_list_pair(&list, &pair)) > 0) {
        if ((status = tfi_list_text(t, &pair.text, &e)) < 0) return tfi_fail_prefix(status, "%s: the vocabulary: ", file);
        if ((e.id = member_id(&pair)) < 0) return bad_token(file, e.text, e.size, "has an id that is not an integer in range");
        if ((status = tfi_trie_add(&t->vocab, (const uint8_t *)e.text, e.size, &id)) < 0)
            return tfi_fail_prefix(status, "%s: the vocabulary: ", file);
        if (*id != TFI_TRIE_NONE) return bad_token(file, e.text, e.size, "is a duplicate");
        *id = e.id;
        out->data[out->count++] = e;
    }
    if (more < 0) return bad_token(file, pair.text.data, pair.text.size, "is not a string with an id");
    t->vocab_entries = (int32_t)out->count;
    return TF_STATUS_OK;
}

static tf_status read_model_settings(tf_tokenizer *t, tfi_json model, const char **unk)
{
    const char *prefix = t->prefix;
    tf_status status;

    if ((status = tfi_json_string(model, "unk_token", unk)) < 0) return status;
    if ((status = tfi_json_string(model, "continuing_subword_prefix", &prefix)) < 0) return status;
    if ((status = tfi_json_int(model, "max_input_chars_per_word", 0, INT32_MAX, &t->word_chars_max)) < 0) return status;
    t->prefix_size = (uint32_t)strlen(prefix);
    return (t->prefix = tfi_arena_copy(&t->arena, prefix, t->prefix_size)) ? TF_STATUS_OK : TF_STATUS_NOMEM;
}

/* Merges beside a model that has none are not used, but must be JSON. */
static tf_status check_unused_merges(const tfi_entries *entries, const char *file)
{
    tfi_json_list list = entries->lists[TFI_LIST_MERGES];
    tfi_json_text texts[2];
    int more = list.is_object ? -1 : !list.begin ? 0 : 1;

    while (more > 0) more = tfi_json_list_texts(&list, texts);
    return more < 0 ? tfi_fail(TF_STATUS_CORRUPT, "%s: \"model.merges\" is not a list of merges", file) : TF_STATUS_OK;
}

tf_status tfi_read_json_model(tf_tokenizer *t, tfi_json root, int whole, const char **unk, tfi_entries *out)
{
    const tfi_json model = {.object = json_object_get(root.object, "model"), .file = root.file};
    const char *type = NULL;
    tf_status status;

    if ((status = expect(model.object, JSON_OBJECT, root.file, "model", "an object")) < 0) return status;
    if ((status = tfi_json_string(model, "type", &type)) < 0) return status;
    if (!type)
        type = json_object_get(model.object, "merges")   ? "BPE"
               : json_object_get(model.object, "unk_id") ? "Unigram"
                                                         : "WordPiece";
    if (strcmp(type, "BPE") == 0) return tfi_read_bpe_model(t, model, whole, out);
    if ((status = check_unused_merges(out, root.file)) < 0) return status;
    if (strcmp(type, "Unigram") == 0) return tfi_read_unigram_model(t, model, whole, out);
    const int is_pieces = strcmp(type, "WordPiece") == 0;
    if (!is_pieces && strcmp(type, "WordLevel") != 0) return refuse(root, "the model", type);
    t->model = is_pieces ? TFI_MODEL_WORDPIECE : TFI_MODEL_WORDLEVEL;
    if (!is_pieces) *unk = "<unk>";
    if (!is_pieces && (status = tfi_json_string(model, "unk_token", unk)) < 0) return status;
    if (is_pieces && whole && (status = read_model_settings(t, model, unk)) < 0) return status;
    return tfi_read_vocab_json(t, root.file, out);
}

/* Normalizer, pre-tokenizer, decoder. */

/* Does the one splitter, or the last of two behind WhitespaceSplit, have this name? */
static int splits_by(const tf_tokenizer *t, const char *name, int count)
{
    return t->splitters.count == count && tfi_part_is(&t->splitters.data[count - 1], name) &&
           (count == 1 || tfi_part_is(&t->splitters.data[0], "WhitespaceSplit"));
}

/* BertNormalizer and BertPreTokenizer before WordPiece: words.c. */
static int takes_words(tf_tokenizer *t)
{
    const tfi_part *normalizer = t->normalizers.data;

    t->clean_text = t->split_cjk = t->strip_accents = t->lowercase = 0;
    if (!splits_by(t, "BertPreTokenizer", 1) || t->normalizers.count > 1) return 0;
    if (t->normalizers.count == 0) return 1;
    if (!tfi_part_is(normalizer, "BertNormalizer")) return 0;
    t->clean_text = normalizer->clean_text;
    t->split_cjk = normalizer->split_cjk;
    t->strip_accents = normalizer->strip_accents;
    t->lowercase = normalizer->lowercase;
    return 1;
}

/* ByteLevel alone before BPE whose characters all are spelled bytes: bpe.c. */
static int takes_bytes(tf_tokenizer *t)
{
    if (!splits_by(t, "ByteLevel", 1) || t->normalizers.count > 0 || t->bpe.is_text) return 0;
    t->bpe.prefix_space = t->splitters.data[0].prefix_space;
    t->bpe.use_pattern = t->splitters.data[0].use_pattern;
    return 1;
}

/* WhitespaceSplit, Metaspace, both or neither before Unigram: unigram.c. */
static int takes_marks(tf_tokenizer *t)
{
    const int n = t->splitters.count;
    const int has_mark = splits_by(t, "Metaspace", 1) || splits_by(t, "Metaspace", 2);

    if (n > 0 && !has_mark && !splits_by(t, "WhitespaceSplit", 1)) return 0;
    t->unigram.split_spaces = n - has_mark;
    if (has_mark) tfi_unigram_mark(&t->unigram, &t->splitters.data[n - 1]);
    return 1;
}

tf_status tfi_read_json_pipeline(tf_tokenizer *t, tfi_json root)
{
    tf_status status;

    if ((status = tfi_parts_read(t, &root, "normalizer", "normalizers", tfi_normalizers, &t->normalizers)) < 0 ||
        (status = tfi_parts_read(t, &root, "pre_tokenizer", "pretokenizers", tfi_splitters, &t->splitters)) < 0 ||
        (status = tfi_parts_read(t, &root, "decoder", "decoders", tfi_decoders, &t->decoders)) < 0)
        return status;
    switch (t->model) {
    case TFI_MODEL_WORDPIECE:
        t->is_general = !takes_words(t);
        break;
    case TFI_MODEL_BPE:
        t->is_general = !takes_bytes(t);
        break;
    case TFI_MODEL_UNIGRAM:
        t->is_general = !takes_marks(t);
        break;
    default:
        t->is_general = 1;
        break;
    }
    for (int i = 0; i < t->normalizers.count; i++) {
        const tfi_part *part = &t->normalizers.data[i];
        t->lowercase |= part->lowercase || tfi_part_is(part, "Lowercase");
    }
    return TF_STATUS_OK;
}

/* Post-processor. */

enum { PIECES_MAX = 64 };

static tf_status bad_template(tfi_json root, const char *what)
{
    return tfi_fail(TF_STATUS_CORRUPT, "%s: post_processor: %s", root.file, what);
}

/* Append the ids that a special token of the template stands for. */
static tf_status special_pieces(tf_tokenizer *t, tfi_json root, const json_t *known, const char *name, int32_t type,
                                tfi_piece *pieces, int32_t *count)
{
    const json_t *ids = name ? json_object_get(json_object_get(known, name), "ids") : NULL, *id;
    size_t i;

    if (!json_is_array(ids)) return bad_template(root, "a special token of the template has no ids in special_tokens");
    json_array_foreach(ids, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= t->vocab_size)
            return bad_template(root, "the id of a special token is outside the vocabulary");
        if (*count == PIECES_MAX) return bad_template(root, "the template has too many steps");
        pieces[(*count)++] = (tfi_piece){.id = (int32_t)json_integer_value(id), .type = type};
    }
    return TF_STATUS_OK;
}

static tf_status one_piece(tf_tokenizer *t, tfi_json root, const json_t *known, const json_t *step, int is_pair,
                           tfi_piece *pieces, int32_t *count)
{
    const json_t *text = json_object_get(step, "Sequence"), *special = json_object_get(step, "SpecialToken");
    const tfi_json part = {.object = text ? text : special, .file = root.file};
    const char *name = NULL;
    int64_t type = 0;
    tf_status status;

    if (!json_is_object(part.object)) return bad_template(root, "a step is neither a Sequence nor a SpecialToken");
    if ((status = tfi_json_string(part, "id", &name)) < 0) return status;
    if ((status = tfi_json_int(part, "type_id", 0, INT32_MAX, &type)) < 0) return status;
    if (!text) return special_pieces(t, root, known, name, (int32_t)type, pieces, count);
    const int second = name && strcmp(name, "B") == 0;
    if (!name || (!second && strcmp(name, "A") != 0) || (second && !is_pair))
        return bad_template(root, "a Sequence is neither A nor, in the template for pairs, B");
    if (*count == PIECES_MAX) return bad_template(root, "the template has too many steps");
    pieces[(*count)++] = (tfi_piece){.id = second ? TFI_PIECE_SECOND : TFI_PIECE_FIRST, .type = (int32_t)type};
    return TF_STATUS_OK;
}

static tf_status read_template(tf_tokenizer *t, tfi_json root, tfi_json part, int is_pair, tfi_template *out)
{
    const char *key = is_pair ? "pair" : "single";
    const json_t *steps = json_object_get(part.object, key), *known = json_object_get(part.object, "special_tokens"), *step;
    tfi_piece pieces[PIECES_MAX];
    int32_t count = 0;
    size_t i;
    tf_status status;

    if ((status = expect(steps, JSON_ARRAY, root.file, key, "an array")) < 0) return status;
    json_array_foreach(steps, i,
                       step) if ((status = one_piece(t, root, known, step, is_pair, pieces, &count)) < 0) return status;
    return tfi_template_set(t, out, pieces, count);
}

/* ["[SEP]", 102] */
static tf_status pair_id(tf_tokenizer *t, tfi_json part, const char *key, int32_t *id)
{
    const json_t *number = json_array_get(json_object_get(part.object, key), 1);

    if (!json_is_integer(number) || json_integer_value(number) < 0 || json_integer_value(number) >= t->vocab_size)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: post_processor: \"%s\" is not a token with an id of the vocabulary", part.file,
                        key);
    *id = (int32_t)json_integer_value(number);
    return TF_STATUS_OK;
}

static tf_status read_bert_processing(tf_tokenizer *t, tfi_json part)
{
    int32_t cls = 0, sep = 0;
    tf_status status;

    if ((status = pair_id(t, part, "cls", &cls)) < 0 || (status = pair_id(t, part, "sep", &sep)) < 0) return status;
    const tfi_piece pieces[] = {{cls, 0}, {TFI_PIECE_FIRST, 0}, {sep, 0}, {TFI_PIECE_SECOND, 1}, {sep, 1}};
    if ((status = tfi_template_set(t, &t->single, pieces, 3)) < 0) return status;
    return tfi_template_set(t, &t->pair, pieces, 5);
}

/* What ByteLevel and RobertaProcessing do to offsets. */
static tf_status read_trimming(tf_tokenizer *t, tfi_json part)
{
    t->bpe.trim = t->bpe.trim_expects_prefix = 1;
    const tf_status status = tfi_json_bool(part, "trim_offsets", &t->bpe.trim);
    return status < 0 ? status : tfi_json_bool(part, "add_prefix_space", &t->bpe.trim_expects_prefix);
}

tf_status tfi_roberta_template(tf_tokenizer *t, int32_t cls, int32_t sep)
{
    const tfi_piece pieces[] = {{cls, 0}, {TFI_PIECE_FIRST, 0}, {sep, 0}, {sep, 0}, {TFI_PIECE_SECOND, 0}, {sep, 0}};
    const tf_status status = tfi_template_set(t, &t->single, pieces, 3);

    return status < 0 ? status : tfi_template_set(t, &t->pair, pieces, 6);
}

tf_status tfi_plain_template(tf_tokenizer *t)
{
    static const tfi_piece plain[] = {{TFI_PIECE_FIRST, 0}, {TFI_PIECE_SECOND, 1}};
    const tf_status status = tfi_template_set(t, &t->single, plain, 1);

    return status < 0 ? status : tfi_template_set(t, &t->pair, plain, 2);
}

static tf_status read_roberta_processing(tf_tokenizer *t, tfi_json part)
{
    int32_t cls = 0, sep = 0;
    tf_status status;

    if ((status = pair_id(t, part, "cls", &cls)) < 0 || (status = pair_id(t, part, "sep", &sep)) < 0) return status;
    if ((status = read_trimming(t, part)) < 0) return status;
    return tfi_roberta_template(t, cls, sep);
}

/* What the post-processors of a file come to: at most one that puts special tokens around, and one that trims. */
typedef struct processors {
    int templates, trims;
} processors;

static tf_status read_processor(tf_tokenizer *t, tfi_json part, int depth, processors *found)
{
    const char *type = NULL;
    const json_t *list = json_object_get(part.object, "processors"), *member;
    size_t i;
    tf_status status;

    if (!json_is_object(part.object)) return tfi_fail(TF_STATUS_CORRUPT, "%s: a post_processor is not an object", part.file);
    if ((status = tfi_json_string(part, "type", &type)) < 0) return status;
    if (!type) return tfi_fail(TF_STATUS_CORRUPT, "%s: a post_processor has no \"type\"", part.file);
    if (strcmp(type, "Sequence") == 0 && depth < 4) {
        if ((status = expect(list, JSON_ARRAY, part.file, "processors", "an array")) < 0) return status;
        json_array_foreach(list, i, member)
        {
            const tfi_json one = {.object = member, .file = part.file};
            if ((status = read_processor(t, one, depth + 1, found)) < 0) return status;
        }
        return TF_STATUS_OK;
    }
    const int is_bytes = strcmp(type, "ByteLevel") == 0, is_roberta = strcmp(type, "RobertaProcessing") == 0;
    if ((found->templates += !is_bytes) > 1 || (found->trims += is_bytes || is_roberta) > 1)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: the post_processor %s behind another of its kind is not supported",
                        part.file, type);
    if (is_bytes) return read_trimming(t, part);
    if (is_roberta) return read_roberta_processing(t, part);
    if (strcmp(type, "BertProcessing") == 0) return read_bert_processing(t, part);
    if (strcmp(type, "TemplateProcessing") != 0) return refuse(part, "the post_processor", type);
    t->windows_keep_type = 1;
    if ((status = read_template(t, part, part, 0, &t->single)) < 0) return status;
    return read_template(t, part, part, 1, &t->pair);
}

tf_status tfi_read_json_template(tf_tokenizer *t, tfi_json root)
{
    const json_t *processor = json_object_get(root.object, "post_processor");
    processors found = {0};
    tf_status status = TF_STATUS_OK;

    if (processor && !json_is_null(processor))
        status = read_processor(t, (tfi_json){.object = processor, .file = root.file}, 0, &found);
    if (status < 0) return status;
    t->is_general |= t->bpe.trim && t->model != TFI_MODEL_BPE;
    return found.templates ? TF_STATUS_OK : tfi_plain_template(t);
}

/* Added tokens, wherever they are written. */

static tf_status added_flag(tfi_json j, const char *key, uint8_t *out)
{
    int value = *out;
    const tf_status status = tfi_json_bool(j, key, &value);

    *out = (uint8_t)value;
    return status;
}

tf_status tfi_read_added(const json_t *value, const char *file, const char *key, int special_default, tfi_added *out)
{
    const tfi_json j = {.object = value, .file = file};
    const json_t *content = json_is_object(value) ? json_object_get(value, "content") : value;
    tf_status status;

    if (!json_is_string(content))
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\": an added token is a string or an object with a content", file, key);
    *out = (tfi_added){.text = json_string_value(content), .special = (uint8_t)special_default};
    if (json_string_length(content) > INT32_MAX) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\": an endless token", file, key);
    out->size = (uint32_t)json_string_length(content);
    if (!json_is_object(value)) {
        out->normalized = !special_default;
        return TF_STATUS_OK;
    }
    if ((status = added_flag(j, "special", &out->special)) < 0) return status;
    out->normalized = !out->special;
    if ((status = added_flag(j, "normalized", &out->normalized)) < 0) return status;
    if ((status = added_flag(j, "lstrip", &out->lstrip)) < 0) return status;
    if ((status = added_flag(j, "rstrip", &out->rstrip)) < 0) return status;
    return added_flag(j, "single_word", &out->single_word);
}
