/* Opening: which files and which rules a directory asks for, as transformers' AutoTokenizer decides it.
 *
 * A class of BERT's, RoBERTa's, GPT-2's, T5's, XLM-R's, CamemBERT's or ByT5's (named in tokenizer_config.json or config.json,
 * or meant by config.json's model_type) is built from tokenizer_config.json's settings; of a tokenizer.json it takes only the
 * vocabulary, the merges or the character map and the added tokens, and GPT-2's the post-processor. A class that stands for
 * "what tokenizer.json says" takes tokenizer.json whole. With no class at all a vocab.txt is read as BERT and GPT-2's own
 * encoder.json with vocab.bpe as GPT-2. A .model file by itself has libsentencepiece's rules, and so has T5's class where the
 * file's unk_id is not 2, as the class takes for granted (rinna's Japanese GPT-2). Everything else is refused by name. */
#define _POSIX_C_SOURCE 200809L
#include "tokenizer/load.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/status.h"

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

/* Classes ("Fast" at the end was cut off), and the model types that have one where no class is named. */
static const struct {
    const char *name;
    tfi_rules rules;
} classes[] = {{"BertTokenizer", TFI_RULES_BERT},
               {"DistilBertTokenizer", TFI_RULES_BERT},
               {"ElectraTokenizer", TFI_RULES_BERT},
               {"MobileBertTokenizer", TFI_RULES_BERT},
               {"LayoutLMTokenizer", TFI_RULES_BERT},
               {"LxmertTokenizer", TFI_RULES_BERT},
               {"SqueezeBertTokenizer", TFI_RULES_BERT},
               {"RobertaTokenizer", TFI_RULES_ROBERTA},
               {"GPT2Tokenizer", TFI_RULES_GPT2},
               {"T5Tokenizer", TFI_RULES_T5},
               {"XLMRobertaTokenizer", TFI_RULES_XLM_ROBERTA},
               {"CamembertTokenizer", TFI_RULES_CAMEMBERT},
               {"AlbertTokenizer", TFI_RULES_ALBERT},
               {"ByT5Tokenizer", TFI_RULES_BYT5},
               {"PreTrainedTokenizer", TFI_RULES_WHOLE},
               {"TokenizersBackend", TFI_RULES_WHOLE}},
  types[] = {{"bert", TFI_RULES_BERT},
             {"distilbert", TFI_RULES_BERT},
             {"electra", TFI_RULES_BERT},
             {"mobilebert", TFI_RULES_BERT},
             {"layoutlm", TFI_RULES_BERT},
             {"lxmert", TFI_RULES_BERT},
             {"squeezebert", TFI_RULES_BERT},
             {"roberta", TFI_RULES_ROBERTA},
             {"gpt2", TFI_RULES_GPT2},
             {"t5", TFI_RULES_T5},
             {"mt5", TFI_RULES_T5},
             {"xlm-roberta", TFI_RULES_XLM_ROBERTA},
             {"camembert", TFI_RULES_CAMEMBERT},
             {"albert", TFI_RULES_ALBERT},
             {"byt5", TFI_RULES_BYT5}};

/* Files. */

static tf_status read_json(tfi_loading *l, const char *name, tfi_json *out)
{
    tfi_file file;
    json_t *root;
    tf_status status = tfi_files_open(l->files, name, &file);

    *out = (tfi_json){.file = name};
    if (status == TF_STATUS_NOT_FOUND) return TF_STATUS_OK;
    if (status < 0) return status;
    status = tfi_json_parse((const char *)file.data, file.size, name, &root);
    tfi_files_close(l->files, &file);
    if (status < 0) return tfi_fail_prefix(status, "%s/", l->files->label);
    out->object = root;
    if (!json_is_object(root)) return tfi_fail(TF_STATUS_CORRUPT, "%s/%s: the root is not an object", l->files->label, name);
    return TF_STATUS_OK;
}

/* The same for a file with a vocabulary, which stays text, as merges do: members of `outer`, or the root if it is NULL. */
static tf_status read_around(tfi_loading *l, const char *name, const char *outer, tfi_json *out)
{
    static const char *const inner[TFI_LISTS] = {"vocab", "merges"};
    tfi_file *file = &l->pieces_file;
    json_t *root;
    tf_status status = tfi_files_open(l->files, name, file);

    *out = (tfi_json){.file = name};
    if (status == TF_STATUS_NOT_FOUND) return TF_STATUS_OK;
    if (status < 0) return status;
    status = tfi_json_parse_around((const char *)file->data, file->size, name, outer, inner, outer ? TFI_LISTS : 1,
                                   l->t->memory, &root, l->entries.lists);
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

static void loading_close(tfi_loading *l)
{
    close_json(&l->config);
    close_json(&l->model);
    close_json(&l->tokens);
    close_json(&l->special_map);
    close_json(&l->added);
    close_json(&l->bpe_vocab);
    if (l->pieces_file.data) tfi_files_close(l->files, &l->pieces_file);
    if (l->merges.data) tfi_files_close(l->files, &l->merges);
    if (l->vocab.data) tfi_files_close(l->files, &l->vocab);
    if (l->spm.file.data) tfi_files_close(l->files, &l->spm.file);
    tfi_free(l->t->memory, l->declared, l->declared_capacity * sizeof *l->declared);
    tfi_entries_close(&l->entries);
}

/* Settings. */

static tf_status read_limits(tfi_loading *l)
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

static tf_status read_bert_settings(tfi_loading *l)
{
    tf_tokenizer *t = l->t;
    tfi_part *decoder = NULL;
    int strip = -1;
    tf_status status;

    t->clean_text = t->split_cjk = t->lowercase = 1;
    if ((status = tfi_parts_add(t, tfi_decoders, "WordPiece", &t->decoders, &decoder)) < 0) return status;
    decoder->from = (tfi_string){"##", 2};
    decoder->cleans = 1;
    if ((status = tfi_json_bool(l->config, "do_lower_case", &t->lowercase)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "tokenize_chinese_chars", &t->split_cjk)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "strip_accents", &strip)) < 0) return status;
    t->strip_accents = strip < 0 ? t->lowercase : strip;
    return TF_STATUS_OK;
}

/* Of RoBERTa's and GPT-2's classes. RoBERTa's own post-processor comes with it. */
static tf_status read_bpe_settings(tfi_loading *l)
{
    tfi_bpe *b = &l->t->bpe;
    tfi_part *decoder = NULL;
    tf_status status;

    if ((status = tfi_parts_add(l->t, tfi_decoders, "ByteLevel", &l->t->decoders, &decoder)) < 0) return status;
    b->use_pattern = 1;
    b->trim = l->rules == TFI_RULES_ROBERTA;
    if ((status = tfi_json_bool(l->config, "add_prefix_space", &b->prefix_space)) < 0) return status;
    if (l->rules == TFI_RULES_ROBERTA && (status = tfi_json_bool(l->config, "trim_offsets", &b->trim)) < 0) return status;
    b->trim_expects_prefix = b->prefix_space;
    return TF_STATUS_OK;
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
        const int32_t same = t->unigram.has_twins ? tfi_trie_find(&t->added_ids, (const uint8_t *)e->text, e->size)
                                                  : TFI_TRIE_NONE;
        if (same != TFI_TRIE_NONE && t->added[same].special) t->token_flags[e->id] |= TFI_TOKEN_SPECIAL;
    }
    for (int32_t i = 0; i < t->added_count; i++) {
        const tfi_added *a = &t->added[i];
        const int32_t same = tfi_trie_find(&t->added_ids, (const uint8_t *)a->shown, a->shown_size);
        text[a->id] = a->shown;
        t->text_begin[a->id] = a->shown_size;
        /* The reference asks whether what is shown is a special token. */
        const int is_other = a->shown_size != a->size || memcmp(a->shown, a->text, a->size) != 0;
        t->token_flags[a->id] = (uint8_t)(TFI_TOKEN_PRESENT | (is_other ? TFI_TOKEN_NORMAL : 0) |
                                          (same != TFI_TRIE_NONE && t->added[same].special ? TFI_TOKEN_SPECIAL : 0));
    }
    for (size_t i = 0; i < n; i++) {
        total += t->text_begin[i] + 1;
        if (t->text_begin[i] > t->token_size_max) t->token_size_max = t->text_begin[i];
    }
    if (t->unigram.unk_surface_size > t->token_size_max) t->token_size_max = t->unigram.unk_surface_size;
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
static void set_ids(tfi_loading *l)
{
    tf_tokenizer *t = l->t;
    int32_t *const ids[TFI_NAMED] = {&t->bos_id, &t->eos_id, &t->unk_id, &t->sep_id, &t->pad_id, &t->cls_id, &t->mask_id};

    for (int i = 0; i < TFI_NAMED; i++) {
        const char *usual = l->rules != TFI_RULES_WHOLE || i == TFI_UNK
                                ? NULL
                                : tfi_named[i].own[t->model == TFI_MODEL_WORDPIECE ? TFI_RULES_BERT : TFI_RULES_ROBERTA];
        if (i == TFI_UNK && (t->model == TFI_MODEL_WORDPIECE || t->model == TFI_MODEL_WORDLEVEL)) continue; /* the model's */
        *ids[i] = TFI_TRIE_NONE;
        if (l->names[i].text) *ids[i] = tfi_token_id(t, l->names[i].text, l->names[i].size);
        else if (usual) *ids[i] = tfi_token_id(t, usual, strlen(usual));
    }
    if (t->model == TFI_MODEL_UNIGRAM && t->unk_id == TFI_TRIE_NONE) t->unk_id = t->unigram.unk_id;
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
static tf_status class_template(tfi_loading *l)
{
    tf_tokenizer *t = l->t;

    if (t->cls_id < 0 || t->sep_id < 0)
        return tfi_fail(TF_STATUS_CORRUPT, "tokenizer_config.json: \"%s\" is empty", t->cls_id < 0 ? "cls_token" : "sep_token");
    if (l->rules == TFI_RULES_ROBERTA) return tfi_roberta_template(t, t->cls_id, t->sep_id);
    const tfi_piece pieces[] = {{t->cls_id, 0}, {TFI_PIECE_FIRST, 0}, {t->sep_id, 0}, {TFI_PIECE_SECOND, 1}, {t->sep_id, 1}};
    const tf_status status = tfi_template_set(t, &t->single, pieces, 3);

    return status < 0 ? status : tfi_template_set(t, &t->pair, pieces, 5);
}

/* Of GPT-2's class without a tokenizer.json, beside which add_bos_token and add_eos_token count for nothing. */
static tf_status bos_eos_template(tfi_loading *l)
{
    tf_tokenizer *t = l->t;
    int bos = 0, eos = 0;
    int32_t n = 0, single;
    tfi_piece pieces[6];
    tf_status status;

    if ((status = tfi_json_bool(l->config, "add_bos_token", &bos)) < 0) return status;
    if ((status = tfi_json_bool(l->config, "add_eos_token", &eos)) < 0) return status;
    for (int32_t second = 0; second < 2; second++) {
        if (bos && l->names[TFI_BOS].text) pieces[n++] = (tfi_piece){t->bos_id, second};
        pieces[n++] = (tfi_piece){second ? TFI_PIECE_SECOND : TFI_PIECE_FIRST, second};
        if (eos && l->names[TFI_EOS].text) pieces[n++] = (tfi_piece){t->eos_id, second};
        if (!second) single = n;
    }
    if ((status = tfi_template_set(t, &t->single, pieces, single)) < 0) return status;
    return tfi_template_set(t, &t->pair, pieces, n);
}

/* An end behind each text: T5's and ByT5's. */
static tf_status end_template(tfi_loading *l)
{
    tf_tokenizer *t = l->t;
    const tfi_piece pieces[] = {{TFI_PIECE_FIRST, 0}, {t->eos_id, 0}, {TFI_PIECE_SECOND, 0}, {t->eos_id, 0}};
    tf_status status;

    if (t->eos_id < 0) return tfi_fail(TF_STATUS_CORRUPT, "%s: the tokenizer has no end token", l->files->label);
    t->windows_keep_type = t->model == TFI_MODEL_UNIGRAM;
    if ((status = tfi_template_set(t, &t->single, pieces, 2)) < 0) return status;
    return tfi_template_set(t, &t->pair, pieces, 4);
}

static tf_status read_template(tfi_loading *l)
{
    tf_tokenizer *t = l->t;

    switch (l->rules) {
    case TFI_RULES_BERT:
    case TFI_RULES_BERT_JAPANESE:
    case TFI_RULES_ALBERT:
    case TFI_RULES_ROBERTA:
        return class_template(l);
    case TFI_RULES_XLM_ROBERTA:
    case TFI_RULES_CAMEMBERT:
        if (t->bos_id < 0 || t->eos_id < 0)
            return tfi_fail(TF_STATUS_CORRUPT, "tokenizer_config.json: \"bos_token\" or \"eos_token\" is empty");
        t->windows_keep_type = 1;
        return tfi_roberta_template(t, t->bos_id, t->eos_id);
    case TFI_RULES_T5:
    case TFI_RULES_BYT5:
        return end_template(l);
    case TFI_RULES_SPM:
        if (!l->is_class) return tfi_plain_template(t);
        if (t->eos_id < 0) t->eos_id = tfi_token_id(t, "</s>", 4);
        return end_template(l);
    default:
        return l->tokens.object ? tfi_read_json_template(t, l->tokens) : bos_eos_template(l);
    }
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

/* What kind of model a class has. */
static tfi_token_model class_model(tfi_rules rules)
{
    switch (rules) {
    case TFI_RULES_ROBERTA:
    case TFI_RULES_GPT2:
        return TFI_MODEL_BPE;
    case TFI_RULES_T5:
    case TFI_RULES_XLM_ROBERTA:
    case TFI_RULES_CAMEMBERT:
    case TFI_RULES_ALBERT:
    case TFI_RULES_SPM:
        return TFI_MODEL_UNIGRAM;
    case TFI_RULES_BYT5:
        return TFI_MODEL_BYT5;
    default:
        return TFI_MODEL_WORDPIECE;
    }
}

/* A class's vocabulary, from whichever files there are, and its settings. */
static tf_status read_class(tfi_loading *l, const char **unk)
{
    static const char *const names[] = {"WordPiece", "BPE", "Unigram", "WordLevel", "bytes"};
    tf_tokenizer *t = l->t;
    const tfi_token_model model = class_model(l->rules);
    tf_status status = TF_STATUS_OK;

    if (model == TFI_MODEL_BYT5) return tfi_read_byt5(l);
    t->model = model;
    if (l->tokens.object) {
        status = tfi_read_json_model(t, l->tokens, 0, unk, &l->entries);
        if (status == TF_STATUS_OK && t->model != model)
            status = tfi_fail(TF_STATUS_UNSUPPORTED, "%s: the model is %s, which is not supported for its class",
                              l->tokens.file, names[t->model]);
    } else if (model == TFI_MODEL_BPE) {
        status = tfi_read_vocab_json(t, l->bpe_vocab.file, &l->entries);
        if (status == TF_STATUS_OK) status = tfi_read_merges_txt(t, &l->merges, l->merges_name);
    } else if (model == TFI_MODEL_WORDPIECE) {
        status = tfi_read_vocab_txt(t, &l->vocab, l->vocab_name, l->rules != TFI_RULES_BERT_JAPANESE, &l->entries);
    }
    if (status < 0) return status;
    if (model == TFI_MODEL_UNIGRAM) return tfi_read_unigram_class(l);
    if (l->rules == TFI_RULES_BERT_JAPANESE) return tfi_read_japanese(l);
    return model == TFI_MODEL_BPE ? read_bpe_settings(l) : read_bert_settings(l);
}

/* The vocabulary with its rules. */
static tf_status read_model(tfi_loading *l)
{
    tf_tokenizer *t = l->t;
    const int whole = l->rules == TFI_RULES_WHOLE;
    const char *file = l->tokens.object ? l->tokens.file : l->spm.file.data ? l->spm.name : l->vocab_name;
    const char *unk = !whole && l->names[TFI_UNK].text ? l->names[TFI_UNK].text : "[UNK]";
    tf_status status;

    if (whole) {
        status = tfi_read_json_model(t, l->tokens, 1, &unk, &l->entries);
        if (status == TF_STATUS_OK) status = tfi_read_json_pipeline(t, l->tokens);
    } else {
        status = read_class(l, &unk);
    }
    if (status < 0) return status;
    if (t->model == TFI_MODEL_WORDPIECE) return set_model(t, unk, file);
    if (l->entries.count == 0) return tfi_fail(TF_STATUS_CORRUPT, "%s: the vocabulary is empty", l->files->label);
    if (t->model == TFI_MODEL_UNIGRAM) return tfi_unigram_finish(t, file);
    if (t->model == TFI_MODEL_WORDLEVEL) t->unk_id = tfi_trie_find(&t->vocab, (const uint8_t *)unk, strlen(unk));
    int cleans = t->model != TFI_MODEL_BPE;
    status = tfi_json_bool(l->config, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", &cleans);
    t->never_cleans = t->model == TFI_MODEL_BPE && !cleans;
    return status;
}

/* Everything but the choice of files. */
static tf_status build(tfi_loading *l)
{
    tf_tokenizer *t = l->t;
    const int legacy = !json_is_object(json_object_get(l->config.object, "added_tokens_decoder"));
    tf_status status;

    t->prefix = "##";
    t->prefix_size = 2;
    t->word_chars_max = 100;
    if ((status = tfi_unicode_init(&t->unicode, &t->arena)) < 0) return status;
    if ((l->rules == TFI_RULES_WHOLE || l->rules == TFI_RULES_ALBERT || class_model(l->rules) == TFI_MODEL_BPE) &&
        (status = tfi_unicode_init_more(&t->more, &t->arena)) < 0)
        return status;
    if ((status = read_limits(l)) < 0 || (status = tfi_read_names(l, legacy)) < 0) return status;
    if ((status = read_model(l)) < 0) return status;
    tfi_words_init(t);
    if ((status = tfi_add_tokens(l, legacy)) < 0 || (status = tfi_added_finish(t)) < 0) return status;
    if ((status = tokens_by_id(t, &l->entries)) < 0) return status;
    if (t->model == TFI_MODEL_BPE && (status = tfi_bpe_finish(t)) < 0) return status;
    if (l->rules == TFI_RULES_SPM) tfi_spm_mark_special(t, &l->spm);
    set_ids(l);
    return read_template(l);
}

/* The choice. */

static tf_status nothing_here(const tfi_files *files)
{
    static const char *const others[] = {"vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
                                         "tokenizer.model"};
    tfi_file file;

    for (size_t i = 0; i < COUNT(others); i++) {
        const tf_status status = tfi_files_open(files, others[i], &file);
        if (status == TF_STATUS_NOT_FOUND) continue;
        if (status < 0) return status;
        tfi_files_close(files, &file);
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: its tokenizer is a %s, of a kind or class that is not supported",
                        files->label, others[i]);
    }
    return tfi_fail(TF_STATUS_NOT_FOUND, "%s: neither tokenizer.json nor vocab.txt nor vocab.json", files->label);
}

/* Refuse tokenizers that split into words or pieces by other means, whatever their class. */
static tf_status check_kinds(tfi_loading *l)
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
static tf_status choose(tfi_loading *l)
{
    const char *class = NULL, *type = NULL;
    tf_status status;

    if ((status = tfi_json_string(l->model, "tokenizer_class", &class)) < 0) return status;
    if ((status = tfi_json_string(l->config, "tokenizer_class", &class)) < 0) return status;
    if ((status = tfi_json_string(l->model, "model_type", &type)) < 0) return status;
    if (class && strcmp(class, "BertJapaneseTokenizer") == 0) {
        close_json(&l->tokens); /* its class reads none */
        return l->rules = TFI_RULES_BERT_JAPANESE, TF_STATUS_OK;
    }
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
    l->rules = l->tokens.object ? TFI_RULES_WHOLE : l->vocab.data || type ? TFI_RULES_BERT : TFI_RULES_GPT2;
    l->is_guess = 1;
    return TF_STATUS_OK;
}

/* Open vocab.json with merges.txt, or GPT-2's files under their first names. Without a class only the latter say whose they
 * are. */
static tf_status open_bpe_files(tfi_loading *l)
{
    static const char *const names[2][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
    tf_status status;

    for (int i = l->is_guess; i < 2; i++) {
        if ((status = read_around(l, names[i][0], NULL, &l->bpe_vocab)) < 0) return status;
        if (!l->bpe_vocab.object) continue;
        l->merges_name = names[i][1];
        return tfi_files_need(l->files, names[i][1], &l->merges);
    }
    return nothing_here(l->files);
}

/* Open a .model file and find out whose rules it has. */
static tf_status open_spm(tfi_loading *l, const char *name)
{
    tf_status status = tfi_files_open(l->files, name, &l->spm.file);

    l->spm.name = name;
    if (status == TF_STATUS_NOT_FOUND)
        return l->is_class ? nothing_here(l->files) : tfi_files_need(l->files, name, &l->spm.file);
    if (status < 0) return status;
    if ((status = tfi_spm_read(l->spm.file.data, l->spm.file.size, name, &l->spm.spm)) < 0) return status;
    if (l->spm.spm.model_type != TFI_SPM_UNIGRAM)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: a SentencePiece model of type %s is not supported", name,
                        l->spm.spm.model_type == TFI_SPM_BPE    ? "BPE"
                        : l->spm.spm.model_type == TFI_SPM_WORD ? "WORD"
                        : l->spm.spm.model_type == TFI_SPM_CHAR ? "CHAR"
                                                                : "unknown");
    if (l->rules == TFI_RULES_T5 && l->spm.spm.unk_id != 2) l->rules = TFI_RULES_SPM;
    return TF_STATUS_OK;
}

static tf_status load_directory(tfi_loading *l)
{
    tf_status status;

    l->vocab_name = "vocab.txt";
    if ((status = read_json(l, "tokenizer_config.json", &l->config)) < 0 ||
        (status = read_json(l, "config.json", &l->model)) < 0)
        return status;
    if ((status = read_around(l, "tokenizer.json", "model", &l->tokens)) < 0) return status;
    if ((status = read_json(l, "special_tokens_map.json", &l->special_map)) < 0) return status;
    if ((status = read_json(l, "added_tokens.json", &l->added)) < 0) return status;
    status = tfi_files_open(l->files, "vocab.txt", &l->vocab);
    if (status < 0 && status != TF_STATUS_NOT_FOUND) return status;
    if ((status = choose(l)) < 0) return status;
    l->is_class = 1;
    if (l->tokens.object || l->rules == TFI_RULES_BYT5) return build(l);
    if (l->rules == TFI_RULES_WHOLE) l->rules = TFI_RULES_BERT; /* all that a vocab.txt can be */
    switch (class_model(l->rules)) {
    case TFI_MODEL_BPE:
        status = open_bpe_files(l);
        break;
    case TFI_MODEL_UNIGRAM:
        status =
            open_spm(l, l->rules == TFI_RULES_T5 || l->rules == TFI_RULES_ALBERT ? "spiece.model" : "sentencepiece.bpe.model");
        break;
    default:
        status = l->vocab.data ? TF_STATUS_OK : nothing_here(l->files);
        break;
    }
    return status < 0 ? status : build(l);
}

static tf_status load_file(tfi_loading *l, const char *name)
{
    const size_t n = strlen(name);
    tf_status status;

    l->vocab_name = name;
    if (n >= 5 && strcmp(name + n - 5, ".json") == 0) {
        if ((status = read_around(l, name, "model", &l->tokens)) < 0) return status;
        l->rules = TFI_RULES_WHOLE;
        return build(l);
    }
    if (n >= 6 && strcmp(name + n - 6, ".model") == 0) {
        l->rules = TFI_RULES_SPM;
        return (status = open_spm(l, name)) < 0 ? status : build(l);
    }
    l->rules = TFI_RULES_BERT;
    status = tfi_files_need(l->files, name, &l->vocab);
    return status < 0 ? status : build(l);
}

static _Atomic uint64_t serials;

/* Fill *t, or close it. `name`: the one file that is wanted, or NULL. */
static tf_status load(tf_tokenizer *t, const tfi_files *files, const char *name, const tf_tokenizer_options *options,
                      tf_tokenizer **out)
{
    tfi_loading l = {.t = t, .files = files, .entries = {.memory = t->memory}};

    t->arena.memory = t->memory;
    t->serial = 1 + atomic_fetch_add(&serials, 1);
    if (options) {
        t->log = options->log;
        t->log_user = options->log_user;
        l.mecab_dictionary = options->mecab_dictionary;
    }
    const tf_status status = name ? load_file(&l, name) : load_directory(&l);
    loading_close(&l);
    if (status < 0) tf_tokenizer_close(t);
    else *out = t;
    return status;
}

tf_status tfi_tokenizer_open_files(const tfi_files *files, tfi_memory *memory, const tf_tokenizer_options *options,
                                   tf_tokenizer **out)
{
    tf_tokenizer *t = tfi_zalloc(memory, sizeof *t);

    *out = NULL;
    if (!t) return TF_STATUS_NOMEM;
    t->memory = memory;
    return load(t, files, NULL, options, out);
}

/* `name` as in load(). */
static tf_status open_owned(const tfi_files *files, const char *name, const tf_tokenizer_options *options, tf_tokenizer **out)
{
    tfi_memory memory;
    tf_tokenizer *t;

    tfi_memory_init(&memory, options->allocator, TF_UNSET);
    if (!(t = tfi_zalloc(&memory, sizeof *t))) return TF_STATUS_NOMEM;
    tfi_memory_init(&t->own, options->allocator, TF_UNSET);
    t->memory = &t->own;
    return load(t, files, name, options, out);
}

tf_status tfi_tokenizer_open_source(const tf_source *source, const char *name, const tf_tokenizer_options *options,
                                    tf_tokenizer **out)
{
    tfi_files files;
    const tf_status status = tfi_files_of(&files, source);

    return status < 0 ? status : open_owned(&files, name, options, out);
}

/* Split a file's path into its directory and its name. */
static tf_status open_parent(const char *path, tfi_files *files, tfi_directory *opened, const char **name)
{
    char directory[sizeof opened->path];
    const char *slash = strrchr(path, '/');
    const size_t n = slash ? (size_t)(slash - path) : 0;

    *name = slash ? slash + 1 : path;
    if (n + 2 > sizeof directory) return tfi_fail(TF_STATUS_INVALID, "the path has %zu bytes, too long", strlen(path));
    memcpy(directory, path, n);
    strcpy(directory + n, slash ? n ? "" : "/" : ".");
    return tfi_files_directory(files, opened, directory);
}

tf_status tfi_tokenizer_open_path(const char *path, const tf_tokenizer_options *options, tf_tokenizer **out)
{
    const char *name = NULL;
    tfi_directory opened;
    tfi_files files;
    struct stat st;
    tf_status status;

    if (stat(path, &st) < 0)
        return tfi_fail(errno == ENOENT || errno == ENOTDIR ? TF_STATUS_NOT_FOUND : TF_STATUS_IO, "%s: %s", path,
                        strerror(errno));
    status = S_ISDIR(st.st_mode) ? tfi_files_directory(&files, &opened, path) : open_parent(path, &files, &opened, &name);
    return status < 0 ? status : open_owned(&files, name, options, out);
}
