/* Added tokens: special tokens and words put on top of a vocabulary. The rules, odd ones included, are those of the reference's
 * AddedVocabulary: a token with `normalized` is looked for in the normalised text, the others in the text as it is. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

enum { ADDED_SIZE_MAX = 1024 }; /* bounds what one place in a text can cost */

/* Where the reference puts a token that its vocabulary does not have. */
static tf_status new_id(const tf_tokenizer *t, int32_t *id)
{
    *id = t->added_largest >= t->vocab_entries ? t->added_largest + 1 : t->vocab_entries;
    if (*id > TFI_TOKEN_ID_MAX) return tfi_fail(TF_STATUS_UNSUPPORTED, "more than %d tokens", TFI_TOKEN_ID_MAX + 1);
    return TF_STATUS_OK;
}

/* The entry of this text, made if it is new. */
static tf_status entry(tf_tokenizer *t, const tfi_added *token, tfi_added **out)
{
    int32_t *index, id;
    tf_status status;
    size_t capacity = (size_t)t->added_capacity;
    void *added = t->added;

    if ((status = tfi_trie_add(&t->added_ids, (const uint8_t *)token->text, token->size, &index)) < 0) return status;
    if (*index != TFI_TRIE_NONE) {
        *out = &t->added[*index];
        return TF_STATUS_OK;
    }
    *index = t->added_count;
    if ((status = tfi_reserve(t->memory, &added, &capacity, (size_t)t->added_count + 1, sizeof *t->added)) < 0) return status;
    t->added = added;
    t->added_capacity = (int32_t)capacity;
    id = tfi_vocab_find(t, token->text, token->size);
    if (id == TFI_TRIE_NONE && (status = new_id(t, &id)) < 0) return status;
    if (id > t->added_largest) t->added_largest = id;
    *out = &t->added[t->added_count++];
    **out = (tfi_added){.id = id, .size = token->size};
    if (!((*out)->text = tfi_arena_copy(&t->arena, token->text, token->size))) return TF_STATUS_NOMEM;
    return TF_STATUS_OK;
}

tf_status tfi_added_token(tf_tokenizer *t, const tfi_added *token)
{
    tfi_added *e;
    tf_status status;

    if (token->size == 0) return TF_STATUS_OK;
    if (token->size > ADDED_SIZE_MAX)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "an added token of %u bytes; at most %d", token->size, ADDED_SIZE_MAX);
    if ((status = entry(t, token, &e)) < 0) return status;
    /* The last registration counts; but what was special stays special, and what was normalised is shown so. */
    e->special |= token->special;
    e->shown_normal |= token->normalized;
    e->single_word = token->single_word;
    e->lstrip = token->lstrip;
    e->rstrip = token->rstrip;
    e->normalized = token->normalized;
    return TF_STATUS_OK;
}

static tf_status set_add(tfi_added_set *set, const uint8_t *text, size_t size, int32_t index)
{
    int32_t *value;
    tf_status status;

    if (size == 0) return TF_STATUS_OK; /* the normalizer left nothing of it */
    if ((status = tfi_trie_add(&set->trie, text, size, &value)) < 0) return status;
    if (*value == TFI_TRIE_NONE) *value = index; /* of two with one normal form the reference takes either: here the first */
    set->first[text[0]] = 1;
    set->only_first = set->count == 0 || set->only_first == text[0] ? text[0] : -1;
    set->count++;
    return TF_STATUS_OK;
}

static tf_status finish_one(tf_tokenizer *t, tfi_scratch *s, int32_t index)
{
    tfi_added *e = &t->added[index];
    const tfi_range all = {.end = e->size, .is_first = 1, .is_last = 1};
    uint32_t chars = 0;
    int lost;
    tf_status status;

    e->shown = e->text;
    e->shown_size = e->size;
    if (e->shown_normal) {
        status = t->is_general || t->model == TFI_MODEL_UNIGRAM
                     ? tfi_run_normalizers(t, s, (const uint8_t *)e->text, &all, &chars, &lost)
                     : tfi_normalize(t, s, (const uint8_t *)e->text, 0, e->size, &chars);
        if (status < 0) return status;
        e->shown_size = (uint32_t)s->normal_size;
        if (!(e->shown = tfi_arena_copy(&t->arena, (const char *)s->normal, s->normal_size))) return TF_STATUS_NOMEM;
    }
    if (e->normalized) return set_add(&t->folded, (const uint8_t *)e->shown, e->shown_size, index);
    return set_add(&t->raw, (const uint8_t *)e->text, e->size, index);
}

tf_status tfi_added_finish(tf_tokenizer *t)
{
    tfi_scratch s = {.memory = t->memory};
    tf_status status;

    if ((status = tfi_trie_open(&t->raw.trie, t->memory, 64)) < 0) return status;
    if ((status = tfi_trie_open(&t->folded.trie, t->memory, 64)) < 0) return status;
    for (int32_t i = 0; i < t->added_count && status == TF_STATUS_OK; i++) status = finish_one(t, &s, i);
    tfi_scratch_close(&s);
    return status;
}

static uint8_t flags_at(const tf_tokenizer *t, const uint8_t *text)
{
    uint32_t size;
    return tfi_unicode_flags(&t->unicode, tfi_utf8_decode(text, &size));
}

static uint32_t char_before(const uint8_t *text, uint32_t at)
{
    do at--;
    while ((text[at] & 0xc0) == 0x80);
    return at;
}

static int inside_word(const tf_tokenizer *t, const uint8_t *text, uint32_t size, uint32_t begin, uint32_t end)
{
    if (begin > 0 && flags_at(t, text + char_before(text, begin)) & TFI_UNICODE_WORD) return 1;
    return end < size && flags_at(t, text + end) & TFI_UNICODE_WORD;
}

int tfi_added_next(const tf_tokenizer *t, const tfi_added_set *set, const uint8_t *text, uint32_t size, uint32_t from,
                   uint32_t taken, tfi_match *match)
{
    for (uint32_t at = from, length = 0; at < size; at += length) {
        length = 1;
        if (!set->first[text[at]]) {
            const uint8_t *next = set->only_first < 0 ? NULL : memchr(text + at, set->only_first, size - at);
            if (set->only_first >= 0) length = next ? (uint32_t)(next - text) - at : size - at;
            continue;
        }
        const int32_t index = tfi_trie_longest(&set->trie, TFI_TRIE_ROOT, text + at, size - at, &length);
        if (index == TFI_TRIE_NONE) continue;
        const tfi_added *e = &t->added[index];
        uint32_t begin = at, end = at + length;
        if (t->split_special && e->special) continue;
        if (e->single_word && inside_word(t, text, size, begin, end)) continue;
        if (e->lstrip) {
            while (begin > 0) {
                const uint32_t before = char_before(text, begin);
                if (!(flags_at(t, text + before) & TFI_UNICODE_SPACE)) break;
                begin = before;
            }
            if (begin < taken) begin = taken;
        }
        if (e->rstrip) {
            uint32_t c_size;
            while (end < size && tfi_unicode_flags(&t->unicode, tfi_utf8_decode(text + end, &c_size)) & TFI_UNICODE_SPACE)
                end += c_size;
        }
        if (begin >= end) continue; /* the spaces that the token before it took were all there is of it */
        *match = (tfi_match){.begin = begin, .end = end, .resume = at + length, .index = index};
        return 1;
    }
    return 0;
}
