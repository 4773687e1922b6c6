/* tokenizer.json. What the reference would do otherwise than this module is refused by name. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/load.h"

static tf_status expect(const json_t *v, json_type type, const char *file, const char *key, const char *what)
{
    if (v && json_typeof(v) == type) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %s, %s is expected", file, key, v ? "of another type" : "missing", what);
}

/* The "type" of the component `key`, or NULL in *type where the component is null or absent. */
static tf_status component(tfi_json root, const char *key, tfi_json *part, const char **type)
{
    const json_t *v = json_object_get(root.object, key);
    tf_status status;

    *type = NULL;
    *part = (tfi_json){.object = v, .file = root.file};
    if (!v || json_is_null(v)) return TF_STATUS_OK;
    if ((status = expect(v, JSON_OBJECT, root.file, key, "an object")) < 0) return status;
    if ((status = tfi_json_string(*part, "type", type)) < 0) return status;
    if (!*type) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" has no \"type\"", root.file, key);
    return TF_STATUS_OK;
}

static tf_status refuse(tfi_json root, const char *key, const char *type)
{
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: %s is %s, which is not supported", root.file, key, type ? type : "absent");
}

/* Model. */

tf_status tfi_read_vocab_json(tf_tokenizer *t, const json_t *vocab, const char *file, tfi_entries *out)
{
    const size_t n = json_object_size(vocab);
    const char *text;
    json_t *value;
    tf_status status;
    int32_t *id;
    uint32_t nodes = 0;

    if ((status = tfi_reserve(out->memory, (void **)&out->data, &out->capacity, n, sizeof *out->data)) < 0) return status;
    nodes = n < TFI_TOKEN_ID_MAX / 4 ? (uint32_t)n * 3 : TFI_TOKEN_ID_MAX;
    if ((status = tfi_trie_open(&t->vocab, t->memory, nodes)) < 0) return status;
    json_object_foreach((json_t *)vocab, text, value)
    {
        const json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
        const size_t size = strlen(text);
        if (number < 0 || number > TFI_TOKEN_ID_MAX)
            return tfi_fail(TF_STATUS_CORRUPT, "%s: the vocabulary: the id of \"%.64s\" is not an integer in [0, %d]", file,
                            text, TFI_TOKEN_ID_MAX);
        if ((status = tfi_trie_add(&t->vocab, (const uint8_t *)text, size, &id)) < 0)
            return tfi_fail_prefix(status, "%s: the vocabulary: ", file);
        *id = (int32_t)number;
        out->data[out->count++] = (tfi_entry){.text = text, .size = (uint32_t)size, .id = *id};
    }
    t->vocab_entries = (int32_t)n;
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
    if (strcmp(type, "Unigram") == 0) return tfi_read_unigram_model(t, model, whole, out);
    if (strcmp(type, "WordPiece") != 0) return refuse(root, "the model", type);
    const json_t *vocab = json_object_get(model.object, "vocab");
    t->model = TFI_MODEL_WORDPIECE;
    if ((status = expect(vocab, JSON_OBJECT, root.file, "model.vocab", "an object")) < 0) return status;
    if (whole && (status = read_model_settings(t, model, unk)) < 0) return status;
    return tfi_read_vocab_json(t, vocab, root.file, out);
}

/* Normalizer, pre-tokenizer, decoder. */

static tf_status read_normalizer(tf_tokenizer *t, tfi_json root)
{
    const char *type;
    tfi_json part;
    int strip = -1;
    tf_status status;

    t->clean_text = t->split_cjk = t->strip_accents = t->lowercase = 0;
    if ((status = component(root, "normalizer", &part, &type)) < 0 || !type) return status;
    if (t->model == TFI_MODEL_BPE || strcmp(type, "BertNormalizer") != 0) return refuse(root, "the normalizer", type);
    t->clean_text = t->split_cjk = t->lowercase = 1;
    if ((status = tfi_json_bool(part, "clean_text", &t->clean_text)) < 0) return status;
    if ((status = tfi_json_bool(part, "handle_chinese_chars", &t->split_cjk)) < 0) return status;
    if ((status = tfi_json_bool(part, "lowercase", &t->lowercase)) < 0) return status;
    if ((status = tfi_json_bool(part, "strip_accents", &strip)) < 0) return status;
    t->strip_accents = strip < 0 ? t->lowercase : strip;
    return TF_STATUS_OK;
}

static tf_status read_decoder(tf_tokenizer *t, tfi_json root)
{
    const char *type, *prefix = "##";
    tfi_json part;
    tf_status status;

    if ((status = component(root, "decoder", &part, &type)) < 0 || !type) return status;
    if (strcmp(type, "ByteLevel") == 0) return t->decoder = TFI_DECODER_BYTES, TF_STATUS_OK;
    if (strcmp(type, "WordPiece") != 0) return refuse(root, "the decoder", type);
    t->decoder = TFI_DECODER_WORDPIECE;
    t->decoder_cleans = 1;
    if ((status = tfi_json_bool(part, "cleanup", &t->decoder_cleans)) < 0) return status;
    if ((status = tfi_json_string(part, "prefix", &prefix)) < 0) return status;
    t->decoder_prefix_size = (uint32_t)strlen(prefix);
    return (t->decoder_prefix = tfi_arena_copy(&t->arena, prefix, t->decoder_prefix_size)) ? TF_STATUS_OK : TF_STATUS_NOMEM;
}

static tf_status read_pre_tokenizer(tf_tokenizer *t, tfi_json root)
{
    const char *type;
    tfi_json part;
    tf_status status;

    if ((status = component(root, "pre_tokenizer", &part, &type)) < 0) return status;
    if (!type || strcmp(type, t->model == TFI_MODEL_BPE ? "ByteLevel" : "BertPreTokenizer") != 0)
        return refuse(root, "the pre_tokenizer", type);
    t->bpe.prefix_space = t->bpe.use_pattern = 1;
    if ((status = tfi_json_bool(part, "add_prefix_space", &t->bpe.prefix_space)) < 0) return status;
    return tfi_json_bool(part, "use_regex", &t->bpe.use_pattern);
}

tf_status tfi_read_json_pipeline(tf_tokenizer *t, tfi_json root)
{
    tf_status status;

    if (t->model == TFI_MODEL_UNIGRAM) return tfi_read_unigram_pipeline(t, root);
    if ((status = read_normalizer(t, root)) < 0 || (status = read_pre_tokenizer(t, root)) < 0) return status;
    return read_decoder(t, root);
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

tf_status tfi_read_json_template(tf_tokenizer *t, tfi_json root)
{
    const char *type;
    tfi_json part;
    tf_status status;

    if ((status = component(root, "post_processor", &part, &type)) < 0) return status;
    if (!type) return tfi_plain_template(t);
    if (t->model == TFI_MODEL_BPE && strcmp(type, "RobertaProcessing") == 0) return read_roberta_processing(t, part);
    if (t->model == TFI_MODEL_BPE && strcmp(type, "ByteLevel") == 0) {
        status = read_trimming(t, part);
        return status < 0 ? status : tfi_plain_template(t);
    }
    if (strcmp(type, "BertProcessing") == 0) return read_bert_processing(t, part);
    if (strcmp(type, "TemplateProcessing") != 0) return refuse(root, "the post_processor", type);
    t->windows_keep_type = 1;
    if ((status = read_template(t, root, part, 0, &t->single)) < 0) return status;
    return read_template(t, root, part, 1, &t->pair);
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
