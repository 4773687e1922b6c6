/* The small public calls over an open tokenizer. */
#include "tokenizer/tokenizer.h"

#include <string.h>

#include "base/options.h"
#include "base/status.h"

static const char *const model_names[] = {[TFI_MODEL_WORDPIECE] = "WordPiece",
                                          [TFI_MODEL_BPE] = "BPE",
                                          [TFI_MODEL_UNIGRAM] = "Unigram",
                                          [TFI_MODEL_WORDLEVEL] = "WordLevel",
                                          [TFI_MODEL_BYT5] = "ByT5"};

tf_status tf_tokenizer_get_info(const tf_tokenizer *t, tf_tokenizer_info *info)
{
    if (!t) return tfi_fail(TF_STATUS_INVALID, "tokenizer must not be NULL");
    const tf_tokenizer_info all = {.struct_size = sizeof all,
                                   .model = model_names[t->model],
                                   .vocab_size = t->vocab_size,
                                   .model_max_length = t->model_max_length,
                                   .unk_id = t->unk_id,
                                   .pad_id = t->pad_id,
                                   .cls_id = t->cls_id,
                                   .sep_id = t->sep_id,
                                   .mask_id = t->mask_id,
                                   .bos_id = t->bos_id,
                                   .eos_id = t->eos_id,
                                   .special_tokens_single = t->single.specials,
                                   .special_tokens_pair = t->pair.specials,
                                   .lowercase = t->lowercase || t->japanese.lowercase};
    return tfi_result_write(info, &all, sizeof all, "tf_tokenizer_info");
}

tf_status tf_tokenizer_token(const tf_tokenizer *t, int32_t id, const char **token)
{
    if (!t || !token) return tfi_fail(TF_STATUS_INVALID, "tokenizer and token must not be NULL");
    *token = NULL;
    if (id < 0 || id >= t->vocab_size)
        return tfi_fail(TF_STATUS_INVALID, "id is %d, outside the vocabulary of %d", (int)id, (int)t->vocab_size);
    *token = t->text + t->text_begin[id];
    return TF_STATUS_OK;
}

int32_t tfi_token_id(const tf_tokenizer *t, const char *text, size_t size)
{
    const int32_t added = tfi_trie_find(&t->added_ids, (const uint8_t *)text, size);
    return added != TFI_TRIE_NONE ? t->added[added].id : tfi_vocab_find(t, text, size);
}

tf_status tf_tokenizer_id(const tf_tokenizer *t, tf_text token, int32_t *id)
{
    if (!t || !id || (!token.data && token.size != 0))
        return tfi_fail(TF_STATUS_INVALID, "tokenizer, token and id must not be NULL");
    *id = tfi_token_id(t, token.data, token.size < 0 ? strlen(token.data) : (size_t)token.size);
    return *id == TFI_TRIE_NONE ? TF_STATUS_NOT_FOUND : TF_STATUS_OK;
}

static tf_status read_options(const tf_tokenizer_options *options, tf_tokenizer_options *o)
{
    tf_status status;

    tf_tokenizer_options_init(o);
    if ((status = tfi_options_read(o, sizeof *o, options, "tf_tokenizer_options")) < 0) return status;
    if (o->allocator && (!o->allocator->alloc || !o->allocator->free))
        return tfi_fail(TF_STATUS_INVALID, "tf_tokenizer_options.allocator: alloc and free must both be set");
    return TF_STATUS_OK;
}

tf_status tf_tokenizer_open(const char *path, const tf_tokenizer_options *options, tf_tokenizer **out)
{
    tf_tokenizer_options o;
    tf_status status;

    if (!path || !out) return tfi_fail(TF_STATUS_INVALID, "path and out must not be NULL");
    *out = NULL;
    return (status = read_options(options, &o)) < 0 ? status : tfi_tokenizer_open_path(path, &o, out);
}

tf_status tf_tokenizer_open_source(const tf_source *source, const char *name, const tf_tokenizer_options *options,
                                   tf_tokenizer **out)
{
    tf_tokenizer_options o;
    tf_source s;
    tf_status status;

    if (out) *out = NULL;
    if ((status = tfi_source_copy(&s, source)) < 0) return status;
    if (!out) status = tfi_fail(TF_STATUS_INVALID, "out must not be NULL");
    if (status == TF_STATUS_OK && (status = read_options(options, &o)) == TF_STATUS_OK)
        status = tfi_tokenizer_open_source(&s, name, &o, out);
    tfi_source_released(&s);
    return status;
}

static void close_patterns(tfi_parts *parts)
{
    for (int i = 0; i < parts->count; i++) tfi_pattern_close(parts->data[i].pattern);
}

void tf_tokenizer_close(tf_tokenizer *t)
{
    tfi_memory memory;

    if (!t) return;
    close_patterns(&t->normalizers);
    close_patterns(&t->splitters);
    close_patterns(&t->decoders);
    tfi_trie_close(&t->vocab);
    tfi_bpe_close(&t->bpe, t->memory);
    tfi_unigram_close(&t->unigram);
    tfi_mecab_close(t->japanese.mecab, t->memory);
    tfi_trie_close(&t->added_ids);
    tfi_trie_close(&t->raw.trie);
    tfi_trie_close(&t->folded.trie);
    tfi_free(t->memory, t->added, (size_t)t->added_capacity * sizeof *t->added);
    tfi_arena_close(&t->arena);
    if (t->memory != &t->own) {
        tfi_free(t->memory, t, sizeof *t);
        return;
    }
    tfi_memory_init(&memory, &t->own.hooks, TF_UNSET); /* what counts the memory lies in what is freed */
    tfi_free(&memory, t, sizeof *t);
}
