/* The settings of BertJapaneseTokenizer in tokenizer_config.json, and its dictionary. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/load.h"

static tf_status refuse(const tfi_loading *l, const char *key, const char *value)
{
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: %s is \"%.64s\", which is not supported", l->config.file, key, value);
}

/* Which dictionary the file means: for the error text only, as the caller says where it lies. */
static tf_status read_mecab(tfi_loading *l)
{
    const tfi_json kwargs = {.object = json_object_get(l->config.object, "mecab_kwargs"), .file = l->config.file};
    const json_t *null = json_object_get(kwargs.object, "mecab_dic");
    const char *name = "unidic_lite", *option = NULL;
    int normalize = 1;
    tf_status status;

    if (kwargs.object && !json_is_null(kwargs.object) && !json_is_object(kwargs.object))
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"mecab_kwargs\" is not an object", l->config.file);
    if ((status = tfi_json_string(kwargs, "mecab_dic", &name)) < 0) return status;
    if ((status = tfi_json_string(kwargs, "mecab_option", &option)) < 0) return status;
    if ((status = tfi_json_bool(kwargs, "normalize_text", &normalize)) < 0) return status;
    if (option && *option) return refuse(l, "mecab_option", option);
    if (!normalize) return refuse(l, "normalize_text", "false");
    if (null && json_is_null(null)) name = "one of the system's";
    else if (strcmp(name, "ipadic") != 0 && strcmp(name, "unidic_lite") != 0 && strcmp(name, "unidic") != 0)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: mecab_dic is \"%.64s\", none of ipadic, unidic_lite and unidic", l->config.file,
                        name);
    if (!l->mecab_dictionary)
        return tfi_fail(TF_STATUS_INVALID,
                        "%s/%s: its tokenizer needs a MeCab dictionary (%s); the option mecab_dictionary says where "
                        "it lies",
                        l->files->label, l->config.file, name);
    status = tfi_mecab_open(&l->t->japanese.mecab, l->t->memory, l->mecab_dictionary);
    if (status == TF_STATUS_NOT_FOUND) status = TF_STATUS_INVALID; /* of the option: the checkpoint has a tokenizer */
    return status < 0 ? tfi_fail_prefix(status, "the MeCab dictionary (%s): ", name) : TF_STATUS_OK;
}

tf_status tfi_read_japanese(tfi_loading *l)
{
    tf_tokenizer *t = l->t;
    const char *words = "basic", *pieces = "wordpiece";
    tfi_part *decoder = NULL;
    int split_words = 1, split_pieces = 1;
    tf_status status;

    if ((status = tfi_json_string(l->config, "word_tokenizer_type", &words)) < 0) return status;
    if ((status = tfi_json_string(l->config, "subword_tokenizer_type", &pieces)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "do_word_tokenize", &split_words)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "do_subword_tokenize", &split_pieces)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "do_lower_case", &t->japanese.lowercase)) < 0) return status;
    if (strcmp(words, "mecab") != 0) return refuse(l, "word_tokenizer_type", words);
    if (!split_words) return refuse(l, "do_word_tokenize", "false");
    if (!split_pieces) return refuse(l, "do_subword_tokenize", "false");
    t->japanese.by_character = strcmp(pieces, "character") == 0;
    if (!t->japanese.by_character && strcmp(pieces, "wordpiece") != 0) return refuse(l, "subword_tokenizer_type", pieces);
    if ((status = tfi_parts_add(t, tfi_decoders, "WordPiece", &t->decoders, &decoder)) < 0) return status;
    decoder->from = (tfi_string){"##", 2};
    t->first_keeps_more = 1;
    return read_mecab(l);
}
