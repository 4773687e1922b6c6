/* BPE of words that are text, not bytes: each begins as its characters, with the prefix and the suffix that a model may ask for,
 * and what the vocabulary lacks becomes byte tokens or the unknown token. Merging is bpe.c's. As in the reference's merge_word, an
 * unknown token waits for more of them and is written when a known character comes, so that byte tokens go before it. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

typedef struct unknown {
    int32_t id;
    uint32_t size; /* 0: none waits */
} unknown;

/* Append a symbol; there is room. */
static void put_symbol(tfi_scratch *s, int32_t id, uint32_t size)
{
    const int32_t n = (int32_t)s->symbol_count++;

    s->symbols[n] = (tfi_symbol){.id = id, .size = size, .previous = n - 1, .next = -1};
    if (n > 0) s->symbols[n - 1].next = n;
}

static void put_unknown(tfi_scratch *s, unknown *u)
{
    if (u->size) put_symbol(s, u->id, u->size);
    u->size = 0;
}

/* The node behind `size` bytes more; *lost once there is none. */
static uint32_t walk(const tfi_trie *vocab, uint32_t node, const uint8_t *text, uint32_t size, int *lost)
{
    for (uint32_t i = 0; i < size && !*lost; i++) *lost = !(node = tfi_trie_step(vocab, node, text[i]));
    return node;
}

/* The id of a character where it stands. */
static int32_t char_id(const tf_tokenizer *t, const uint8_t *text, uint32_t size, int is_first, int is_last)
{
    const tfi_bpe *b = &t->bpe;
    uint32_t node = TFI_TRIE_ROOT;
    int lost = 0;

    if (!is_first) node = walk(&t->vocab, node, (const uint8_t *)b->inner_prefix.data, b->inner_prefix.size, &lost);
    node = walk(&t->vocab, node, text, size, &lost);
    if (is_last) node = walk(&t->vocab, node, (const uint8_t *)b->end_suffix.data, b->end_suffix.size, &lost);
    return lost ? TFI_TRIE_NONE : t->vocab.values[node];
}

static int has_bytes(const tfi_bpe *b, const uint8_t *text, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        if (b->fallback_id[text[i]] == TFI_TRIE_NONE) return 0;
    return 1;
}

/* Room for a word's symbols, and for two keys of each in the heap. */
static tf_status reserve_word(tfi_scratch *s, size_t size)
{
    const tf_status status = tfi_reserve(s->memory, (void **)&s->symbols, &s->symbol_capacity, size + 1, sizeof *s->symbols);

    return status < 0 ? status : tfi_reserve(s->memory, (void **)&s->heap, &s->heap_capacity, 2 * (size + 1), sizeof *s->heap);
}

/* The characters of a word as symbols. */
static tf_status read_word(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, uint32_t size)
{
    const tfi_bpe *b = &t->bpe;
    unknown u = {0};
    uint32_t n;

    s->symbol_count = 0;
    for (uint32_t at = 0; at < size; at += n) {
        (void)tfi_utf8_decode(text + at, &n);
        const int32_t id = char_id(t, text + at, n, at == 0, at + n == size);
        if (id != TFI_TRIE_NONE) {
            put_unknown(s, &u);
            put_symbol(s, id, n);
        } else if (b->byte_fallback && has_bytes(b, text + at, n)) {
            for (uint32_t i = 0; i < n; i++) put_symbol(s, b->fallback_id[text[at + i]], 1);
        } else if (b->has_unk) {
            if (b->unk_id == TFI_TRIE_NONE)
                return tfi_fail(TF_STATUS_INVALID, "\"%.*s\" is not in the vocabulary, and neither is the unknown token",
                                (int)n, (const char *)text + at);
            if (!b->fuse_unk) put_unknown(s, &u);
            u = (unknown){.id = b->unk_id, .size = u.size + n};
        }
    }
    put_unknown(s, &u);
    return TF_STATUS_OK;
}

/* A token of the word's bytes [begin, end); *c walks along the code points. */
static void put_token(tfi_reading *x, int32_t id, const tfi_char **c, const tfi_char *last, uint32_t begin, uint32_t end)
{
    const tfi_char *p = *c;

    while (p < last && p[1].at <= begin) p++;
    const tfi_char *first = p;
    while (p < last && p[1].at < end) p++;
    tfi_put_token(x, id, first->byte_begin, p->byte_end, first->index, p->index + 1);
    *c = p;
}

tf_status tfi_bpe_word(tfi_reading *x, size_t begin, size_t end)
{
    const tf_tokenizer *t = x->t;
    tfi_scratch *s = x->s;
    const tfi_char *c = s->chars + begin, *last = s->chars + end - 1;
    const uint32_t at = c->at, size = (end < s->char_count ? s->chars[end].at : (uint32_t)s->normal_size) - at;
    const int32_t same = tfi_trie_find(&t->vocab, s->normal + at, size);
    const int is_whole = same != TFI_TRIE_NONE && (t->bpe.ignore_merges || t->token_flags[same] & TFI_TOKEN_WHOLE);
    uint32_t done = at;
    tf_status status;

    if ((status = reserve_word(s, size)) < 0) return status;
    s->symbol_count = 0;
    if (is_whole) put_symbol(s, same, size);
    else if ((status = read_word(t, s, s->normal + at, size)) < 0) return status;
    if (s->symbol_count > 1) tfi_bpe_merge(&t->bpe, s);
    if ((status = tfi_reserve_tokens(s, s->symbol_count)) < 0) return status;
    for (int32_t i = s->symbol_count ? 0 : -1; i >= 0; i = s->symbols[i].next) {
        put_token(x, s->symbols[i].id, &c, last, done, done + s->symbols[i].size);
        done += s->symbols[i].size;
    }
    x->word++;
    return TF_STATUS_OK;
}

/* Learn whether the token is what its characters merge into, so that the word needs no merging. */
static tf_status learn_word(tf_tokenizer *t, tfi_scratch *s, int32_t id)
{
    const uint8_t *token = (const uint8_t *)t->text + t->text_begin[id];
    const uint32_t size = t->text_begin[id + 1] - t->text_begin[id] - 1;
    tf_status status;

    if (size == 0 || tfi_trie_find(&t->vocab, token, size) != id) return TF_STATUS_OK; /* an added token's other form */
    if ((status = reserve_word(s, size)) < 0 || (status = read_word(t, s, token, size)) < 0) return status;
    tfi_bpe_merge(&t->bpe, s);
    if (s->symbol_count > 0 && s->symbols[0].next < 0 && s->symbols[0].id == id) t->token_flags[id] |= TFI_TOKEN_WHOLE;
    return TF_STATUS_OK;
}

tf_status tfi_bpe_finish_words(tf_tokenizer *t)
{
    const tfi_bpe *b = &t->bpe;
    const int is_plain = b->inner_prefix.size == 0 && b->end_suffix.size == 0;
    tfi_scratch s = {.memory = t->memory};
    tf_status status = TF_STATUS_OK;
    char name[16];

    for (int i = 0; i < 256; i++) {
        const int size = snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        t->bpe.fallback_id[i] = tfi_trie_find(&t->vocab, (const uint8_t *)name, (size_t)size);
    }
    for (int32_t id = 0; is_plain && id < t->vocab_size && status >= 0; id++) {
        if (!(t->token_flags[id] & TFI_TOKEN_PRESENT)) continue;
        status = learn_word(t, &s, id);
        if (status == TF_STATUS_INVALID) status = TF_STATUS_OK; /* it has characters that are unknown */
    }
    tfi_scratch_close(&s);
    return status;
}
