/* BPE as files have it: merges beside a vocabulary, in merges.txt or in tokenizer.json's model. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/load.h"

/* Merges while they are read: `where` and the number of one name it in error texts. */
typedef struct merge_list {
    tf_tokenizer *t;
    const char *where;
    int32_t rank; /* of the next one */
} merge_list;

static tf_status bad_merge(const merge_list *l, const char *what, const char *text, size_t size)
{
    return tfi_fail(TF_STATUS_CORRUPT, "%s: merge %d: %s \"%.*s\"", l->where, (int)l->rank + 1, what,
                    (int)(size < 64 ? size : 64), text);
}

/* The id of two strings written as one, or TFI_TRIE_NONE. */
static int32_t joined_id(const tfi_trie *vocab, const char *left, size_t left_size, const char *right, size_t right_size)
{
    uint32_t node = TFI_TRIE_ROOT;

    for (size_t i = 0; i < left_size + right_size; i++) {
        const char c = i < left_size ? left[i] : right[i - left_size];
        if (!(node = tfi_trie_step(vocab, node, (uint8_t)c))) return TFI_TRIE_NONE;
    }
    return vocab->values[node];
}

static tf_status add_merge(merge_list *l, const char *left, size_t left_size, const char *right, size_t right_size)
{
    const tfi_trie *vocab = &l->t->vocab;
    const size_t prefix = l->t->bpe.inner_prefix.size;
    if (right_size < prefix) return bad_merge(l, "no room for continuing_subword_prefix in", right, right_size);
    const tfi_merge m = {.left = tfi_trie_find(vocab, (const uint8_t *)left, left_size),
                         .right = tfi_trie_find(vocab, (const uint8_t *)right, right_size),
                         .rank = l->rank,
                         .id = joined_id(vocab, left, left_size, right + prefix, right_size - prefix)};

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

/* ["a b", ...] or [["a", "b"], ...] */
static tf_status read_json_merges(tf_tokenizer *t, const json_t *merges, const char *file)
{
    merge_list l = {.t = t, .where = file};
    const json_t *value;
    size_t i;
    tf_status status;

    if (!json_is_array(merges)) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"model.merges\" is not an array", file);
    if ((status = tfi_bpe_open(&t->bpe, t->memory, json_array_size(merges))) < 0) return tfi_fail_prefix(status, "%s: ", file);
    json_array_foreach(merges, i, value)
    {
        const json_t *left = json_array_get(value, 0), *right = json_array_get(value, 1);
        if (json_is_string(value)) {
            status = add_merge_line(&l, json_string_value(value), json_string_length(value));
        } else if (json_array_size(value) == 2 && json_is_string(left) && json_is_string(right)) {
            status = add_merge(&l, json_string_value(left), json_string_length(left), json_string_value(right),
                               json_string_length(right));
        } else {
            status = bad_merge(&l, "neither a string nor two", "", 0);
        }
        if (status < 0) return status;
    }
    return TF_STATUS_OK;
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
    return read_json_merges(t, json_object_get(model.object, "merges"), model.file);
}
