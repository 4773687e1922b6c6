/* BPE as files have it: merges beside a vocabulary, in merges.txt or in tokenizer.json's model. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/load.h"

/* Merges while they are read: `where` and the number of one name it in error texts. */
typedef struct merge_list {
    tf_tokenizer *t;
    const char *where;
    int32_t rank; /* of the next one */
    char *plain;  /* strings without their escapes */
    size_t plain_capacity;
} merge_list;

static tf_status bad_merge(const merge_list *l, const char *what, const char *text, size_t size)
{
    return tfi_fail(TF_STATUS_CORRUPT, "%s: merge %d: %s \"%.*s\"", l->where, (int)l->rank + 1, what,
                    (int)(size < 64 ? size : 64), text);
}

/* The id of the string that leads to `node`, with another one behind it, or TFI_TRIE_NONE. */
static int32_t joined_id(const tfi_trie *vocab, uint32_t node, const char *right, size_t right_size)
{
    for (size_t i = 0; i < right_size; i++)
        if (!(node = tfi_trie_step(vocab, node, (uint8_t)right[i]))) return TFI_TRIE_NONE;
    return vocab->values[node];
}

static tf_status add_merge(merge_list *l, const char *left, size_t left_size, const char *right, size_t right_size)
{
    const tfi_trie *vocab = &l->t->vocab;
    const size_t prefix = l->t->bpe.inner_prefix.size;
    if (right_size < prefix) return bad_merge(l, "no room for continuing_subword_prefix in", right, right_size);
    const uint32_t node = tfi_trie_walk(vocab, (const uint8_t *)left, left_size);
    const int has_left = node || left_size == 0;
    const tfi_merge m = {.left = has_left ? vocab->values[node] : TFI_TRIE_NONE,
                         .right = tfi_trie_find(vocab, (const uint8_t *)right, right_size),
                         .rank = l->rank,
                         .id = has_left ? joined_id(vocab, node, right + prefix, right_size - prefix) : TFI_TRIE_NONE};

    if (m.left == TFI_TRIE_NONE) return bad_merge(l, "the vocabulary has no", left, left_size);
    if (m.right == TFI_TRIE_NONE) return bad_merge(l, "the vocabulary has no", right, right_size);
    if (m.id == TFI_TRIE_NONE) return bad_merge(l, "the vocabulary has not what comes of", left, left_size);
    tfi_bpe_add(&l->t->bpe, &m);
    l->rank++;
    return TF_STATUS_OK;
}

/* "left right" */
static tf_status add_merge_line(merge_list *l, const char *line, size_t size)
{
    const char *space = memchr(line, ' ', size);
    const size_t left = space ? (size_t)(space - line) : size;

    if (!space || memchr(space + 1, ' ', size - left - 1))
        return bad_merge(l, "not two tokens with a space between:", line, size);
    return add_merge(l, line, left, space + 1, size - left - 1);
}

tf_status tfi_read_merges_txt(tf_tokenizer *t, const tfi_file *file, const char *name)
{
    static const char version[] = "#version";
    const char *data = (const char *)file->data;
    merge_list l = {.t = t, .where = name};
    size_t lines = 1;
    uint32_t bad = 0;
    const size_t good = tfi_utf8_valid(file->data, file->size, &bad);
    tf_status status;

    if (bad) return tfi_fail(TF_STATUS_CORRUPT, "%s: not UTF-8 at byte %zu", name, good);
    for (size_t i = 0; i < file->size; i++) lines += data[i] == '\n';
    if ((status = tfi_bpe_open(&t->bpe, t->memory, lines)) < 0) return tfi_fail_prefix(status, "%s: ", name);
    for (size_t at = 0; at < file->size;) {
        const char *end = memchr(data + at, '\n', file->size - at);
        const size_t whole = end ? (size_t)(end - data) - at : file->size - at;
        const size_t size = end && whole > 0 && end[-1] == '\r' ? whole - 1 : whole;
        const int is_version = size >= sizeof version - 1 && memcmp(data + at, version, sizeof version - 1) == 0;
        if (!is_version && (status = add_merge_line(&l, data + at, size)) < 0) return status;
        at += whole + 1;
    }
    return TF_STATUS_OK;
}

/* What the escapes of strings stand for, in the list's own memory until the next member. */
static tf_status unescape(merge_list *l, tfi_json_text *texts, int count)
{
    size_t at = 0, size = 0;

    for (int i = 0; i < count; i++) size += texts[i].size;
    const tf_status status = tfi_reserve(l->t->memory, (void **)&l->plain, &l->plain_capacity, size, 1);
    for (int i = 0; i < count && status == TF_STATUS_OK; i++) {
        if (!texts[i].has_escapes) continue;
        const int64_t plain_size = tfi_json_unescape(&texts[i], l->plain + at);
        if (plain_size < 0) return bad_merge(l, "a wrong escape in", texts[i].data, texts[i].size);
        texts[i] = (tfi_json_text){.data = l->plain + at, .size = (size_t)plain_size};
        at += (size_t)plain_size;
    }
    return status;
}

/* ["a b", ...] or [["a", "b"], ...] */
static tf_status add_json_merges(merge_list *l, tfi_json_list *list)
{
    tfi_json_text texts[2];
    int count, kind = 0;
    tf_status status;

    while ((count = tfi_json_list_texts(list, texts)) > 0 && (kind == 0 || kind == count)) {
        kind = count;
        if (texts[0].has_escapes || (count == 2 && texts[1].has_escapes))
            if ((status = unescape(l, texts, count)) < 0) return status;
        status = count == 1 ? add_merge_line(l, texts[0].data, texts[0].size)
                            : add_merge(l, texts[0].data, texts[0].size, texts[1].data, texts[1].size);
        if (status < 0) return status;
    }
    return count == 0 ? TF_STATUS_OK : bad_merge(l, "neither a string nor two, or not as those before", "", 0);
}

static tf_status read_json_merges(tf_tokenizer *t, const tfi_json_list *merges, const char *file)
{
    merge_list l = {.t = t, .where = file};
    tfi_json_list list = *merges;
    tf_status status = tfi_check_list(merges, file, "model.merges", 0);

    if (status < 0) return status;
    if ((status = tfi_bpe_open(&t->bpe, t->memory, tfi_json_list_bound(merges))) < 0)
        return tfi_fail_prefix(status, "%s: ", file);
    status = add_json_merges(&l, &list);
    tfi_free(t->memory, l.plain, l.plain_capacity);
    return status;
}

/* The settings of a file that is taken whole. */
static tf_status read_settings(tf_tokenizer *t, tfi_json model)
{
    tfi_bpe *b = &t->bpe;
    double dropout = 0;
    int lacks = 0;
    const char *unk = NULL;
    tf_status status;

    if ((status = tfi_part_string(t, &model, "continuing_subword_prefix", 0, &b->inner_prefix)) < 0) return status;
    if ((status = tfi_part_string(t, &model, "end_of_word_suffix", 0, &b->end_suffix)) < 0) return status;
    if ((status = tfi_json_bool(model, "byte_fallback", &b->byte_fallback)) < 0) return status;
    if ((status = tfi_json_bool(model, "ignore_merges", &b->ignore_merges)) < 0) return status;
    if ((status = tfi_json_bool(model, "fuse_unk", &b->fuse_unk)) < 0) return status;
    if ((status = tfi_json_float(model, "dropout", 0, 1, &dropout)) < 0) return status;
    if (dropout > 0) return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: a BPE model with dropout is not supported", model.file);
    if (b->byte_fallback && (b->inner_prefix.size || b->end_suffix.size)) /* its offsets leave the text there */
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: a BPE model with byte_fallback and %s is not supported", model.file,
                        b->inner_prefix.size ? "continuing_subword_prefix" : "end_of_word_suffix");
    if ((status = tfi_json_string(model, "unk_token", &unk)) < 0) return status;
    b->has_unk = unk != NULL;
    b->unk_id = unk ? tfi_trie_find(&t->vocab, (const uint8_t *)unk, strlen(unk)) : TFI_TRIE_NONE;
    for (int i = 0; i < 256; i++) {
        uint8_t spelled[4];
        const uint32_t size = tfi_utf8_encode(tfi_byte_spelling((uint8_t)i), spelled);
        lacks |= tfi_trie_find(&t->vocab, spelled, size) == TFI_TRIE_NONE;
    }
    b->is_text = b->inner_prefix.size || b->end_suffix.size || (lacks && (unk || b->byte_fallback));
    return TF_STATUS_OK;
}

tf_status tfi_read_bpe_model(tf_tokenizer *t, tfi_json model, int whole, tfi_entries *out)
{
    tf_status status;

    t->model = TFI_MODEL_BPE;
    if ((status = tfi_read_vocab_json(t, model.file, out)) < 0) return status;
    if (whole && (status = read_settings(t, model)) < 0) return status;
    return read_json_merges(t, &out->lists[TFI_LIST_MERGES], model.file);
}
