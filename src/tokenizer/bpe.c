/* Text to tokens by byte-level BPE: GPT-2's pattern, merging, offsets.
 *
 * Most words are tokens as they stand and cost one walk through a trie. The others begin as their bytes; the merges that apply
 * wait in a heap, lowest rank first and leftmost among equals, so that a word of n bytes takes n log n steps however long it
 * is. Nothing is allocated a word: symbols and heap are the thread's working memory. */
#include "tokenizer/bpe.h"

#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

enum { NOBODY = -1, SPELLED_SPACE = 0x120 };

/* The alphabet: bytes that print stand for themselves, the others follow U+0100 in their order. */

static int prints(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

uint32_t tfi_byte_spelling(uint8_t byte)
{
    if (prints(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    return byte == 0xad ? 0x143 : 0x121u + (byte - 0x7f); /* 33 controls and the space come before 0x7f */
}

int tfi_spelled_byte(uint32_t c)
{
    if (c < 0x100) return prints(c) ? (int)c : -1;
    if (c <= 0x120) return (int)c - 0x100;
    if (c <= 0x142) return (int)c - 0x121 + 0x7f;
    return c == 0x143 ? 0xad : -1;
}

/* Merges. */

static uint32_t merge_slot(const tfi_bpe *b, int32_t left, int32_t right)
{
    const uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (uint32_t)(key * 0x9e3779b97f4a7c15u >> 32) >> b->shift;
}

/* The slot of a pair, or the free one where it would be. */
static inline tfi_merge *find_merge(const tfi_bpe *b, int32_t left, int32_t right)
{
    uint32_t slot = merge_slot(b, left, right);

    while (b->merges[slot].left != TFI_TRIE_NONE && (b->merges[slot].left != left || b->merges[slot].right != right))
        slot = (slot + 1) & b->mask;
    return &b->merges[slot];
}

tf_status tfi_bpe_open(tfi_bpe *b, tfi_memory *memory, size_t count)
{
    uint32_t log2_slots = 4;

    if (count > INT32_MAX / 4) return tfi_fail(TF_STATUS_UNSUPPORTED, "%zu merges", count);
    while ((1u << log2_slots) < count * 2) log2_slots++;
    const size_t slots = (size_t)1 << log2_slots;
    if (!(b->merges = tfi_alloc(memory, slots * sizeof *b->merges))) return TF_STATUS_NOMEM;
    memset(b->merges, 0xff, slots * sizeof *b->merges);
    b->mask = (uint32_t)(slots - 1);
    b->shift = 32 - log2_slots;
    return TF_STATUS_OK;
}

void tfi_bpe_close(tfi_bpe *b, tfi_memory *memory)
{
    tfi_trie_close(&b->words);
    if (b->merges) tfi_free(memory, b->merges, ((size_t)b->mask + 1) * sizeof *b->merges);
    b->merges = NULL;
}

void tfi_bpe_add(tfi_bpe *b, const tfi_merge *merge)
{
    *find_merge(b, merge->left, merge->right) = *merge;
}

/* The heap: keys are a rank and the left symbol's place, smallest first. */

static void heap_push(tfi_scratch *s, uint64_t key)
{
    size_t i = s->heap_count++;

    for (; i > 0 && s->heap[(i - 1) / 2] > key; i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = key;
}

static uint64_t heap_pop(tfi_scratch *s)
{
    const uint64_t top = s->heap[0], last = s->heap[--s->heap_count];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < s->heap_count; i = child) {
        if (child + 1 < s->heap_count && s->heap[child + 1] < s->heap[child]) child++;
        if (s->heap[child] >= last) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = last;
    return top;
}

/* Let the symbol at `left` and its neighbour wait for their merge, if there is one. */
static void offer(const tfi_bpe *b, tfi_scratch *s, int32_t left)
{
    const int32_t right = s->symbols[left].next;

    if (right == NOBODY) return;
    const tfi_merge *m = find_merge(b, s->symbols[left].id, s->symbols[right].id);
    if (m->left != TFI_TRIE_NONE) heap_push(s, (uint64_t)m->rank << 32 | (uint32_t)left);
}

/* Merge the symbols. What has changed since it was offered has another rank, or none, by now. */
void tfi_bpe_merge(const tfi_bpe *b, tfi_scratch *s)
{
    s->heap_count = 0;
    for (size_t i = 0; i < s->symbol_count; i++) offer(b, s, (int32_t)i);
    while (s->heap_count) {
        const uint64_t key = heap_pop(s);
        const int32_t at = (int32_t)(uint32_t)key;
        tfi_symbol *left = &s->symbols[at];
        if (left->size == 0 || left->next == NOBODY) continue;
        tfi_symbol *right = &s->symbols[left->next];
        const tfi_merge *m = find_merge(b, left->id, right->id);
        if (m->left == TFI_TRIE_NONE || (uint64_t)m->rank != key >> 32) continue;
        left->id = m->id;
        left->size += right->size;
        left->next = right->next;
        right->size = 0;
        if (left->next != NOBODY) s->symbols[left->next].previous = at;
        offer(b, s, at);
        if (left->previous != NOBODY) offer(b, s, left->previous);
    }
}

/* How long a byte's spelling is. */
static uint32_t spelled_size(uint8_t byte)
{
    return tfi_byte_spelling(byte) < 0x80 ? 1 : 2;
}

static void put_symbol(const tfi_bpe *b, tfi_scratch *s, uint8_t byte)
{
    const int32_t n = (int32_t)s->symbol_count;

    if (b->byte_id[byte] == TFI_TRIE_NONE) return;
    s->symbols[n] = (tfi_symbol){
        .id = b->byte_id[byte], .size = b->lacks_bytes ? spelled_size(byte) : 1, .previous = n - 1, .next = NOBODY};
    if (n > 0) s->symbols[n - 1].next = n;
    s->symbol_count++;
}

/* The bytes of a word, with a space before them if `prefix`, as merged symbols: a list from the first one. */
static tf_status merge_word(const tfi_bpe *b, tfi_scratch *s, int prefix, const uint8_t *bytes, size_t size)
{
    tf_status status = tfi_reserve(s->memory, (void **)&s->symbols, &s->symbol_capacity, size + 1, sizeof *s->symbols);

    if (status < 0) return status;
    /* A merge takes one key out and puts at most two in. */
    if ((status = tfi_reserve(s->memory, (void **)&s->heap, &s->heap_capacity, 2 * (size + 1), sizeof *s->heap)) < 0)
        return status;
    s->symbol_count = 0;
    if (prefix) put_symbol(b, s, ' ');
    for (size_t i = 0; i < size; i++) put_symbol(b, s, bytes[i]);
    tfi_bpe_merge(b, s);
    return TF_STATUS_OK;
}

/* Offsets. */

/* Take `leading` and `trailing` code points off a token's range, as far as it goes. */
static void shorten(const uint8_t *text, tfi_token *k, uint32_t leading, uint32_t trailing)
{
    for (; leading > 0 && k->char_begin < k->char_end; leading--, k->char_begin++) {
        do k->byte_begin++;
        while (k->byte_begin < k->byte_end && (text[k->byte_begin] & 0xc0) == 0x80);
    }
    if (k->char_end < trailing) return;
    for (; trailing > 0 && k->char_begin < k->char_end; trailing--, k->char_end--) {
        do k->byte_end--;
        while ((text[k->byte_end] & 0xc0) == 0x80);
    }
}

static int is_blank(const tf_tokenizer *t, const uint8_t *at)
{
    uint32_t size;
    const uint32_t c = tfi_utf8_decode(at, &size);

    return c == SPELLED_SPACE || tfi_unicode_flags(&t->unicode, c) & TFI_UNICODE_SPACE;
}

void tfi_bpe_trim(const tfi_reading *x, tfi_token *k, const uint8_t *string, uint32_t size)
{
    const tfi_bpe *b = &x->t->bpe;
    uint32_t leading = 0, trailing = 0, at = 0;

    for (; at < size && is_blank(x->t, string + at); leading++) {
        do at++;
        while (at < size && (string[at] & 0xc0) == 0x80);
    }
    for (at = size; at > 0; trailing++) {
        do at--;
        while ((string[at] & 0xc0) == 0x80);
        if (!is_blank(x->t, string + at)) break;
    }
    if (leading == 0 && trailing == 0) return;
    if (!b->trim_expects_prefix || leading != 1) {
        shorten(x->text, k, leading, trailing);
        return;
    }
    /* One space at the front of the first token of a window, or of the text, counts as put there by the pre-tokenizer. */
    tfi_token first = *k;
    shorten(x->text, &first, 0, trailing);
    if (k->char_begin == 0) {
        *k = first;
        return;
    }
    shorten(x->text, k, leading, trailing);
    k->first_begin = (uint8_t)(k->byte_begin - first.byte_begin);
    k->first_end = (uint8_t)(k->byte_end - first.byte_end);
}

static void put(tfi_reading *x, int32_t id, uint32_t byte_begin, uint32_t byte_end, uint32_t char_begin, uint32_t char_end)
{
    const tf_tokenizer *t = x->t;
    tfi_token *k = tfi_put_token(x, id, byte_begin, byte_end, char_begin, char_end);

    if (t->bpe.trim && t->token_flags[id] & TFI_TOKEN_SPACED)
        tfi_bpe_trim(x, k, (const uint8_t *)t->text + t->text_begin[id], t->text_begin[id + 1] - t->text_begin[id] - 1);
}

/* A place in a word's bytes, the prefix counted, reached by the bytes of what is spelled. */
typedef struct place {
    uint32_t byte, spelled;
} place;

/* The byte of which the spelling holds place `spelled`. Where the vocabulary lacks bytes the reference counts tokens' places as
 * if the lost ones had not been there. */
static uint32_t byte_at(const uint8_t *word, int prefix, place *p, uint32_t spelled)
{
    for (;;) {
        const uint8_t byte = prefix && p->byte == 0 ? ' ' : word[p->byte - (uint32_t)prefix];
        if (p->spelled + spelled_size(byte) > spelled) return p->byte;
        p->spelled += spelled_size(byte);
        p->byte++;
    }
}

/* The merged symbols of the word text[begin, end) as tokens. A token of a part of a code point has all of it as its range, and
 * so has one of the prefix, which counts as part of the code point behind it. */
static tf_status put_symbols(tfi_reading *x, int prefix, uint32_t begin)
{
    const tfi_bpe *b = &x->t->bpe;
    const tfi_scratch *s = x->s;
    const uint8_t *text = x->text;
    uint32_t done = 0, at = begin, c_size = 0, chars = x->chars;
    place from = {0}, to = {0};
    tf_status status;

    if (s->symbol_count == 0) return TF_STATUS_OK;
    if ((status = tfi_reserve_tokens(x->s, s->symbol_count)) < 0) return status;
    for (int32_t i = 0; i != NOBODY; i = s->symbols[i].next) {
        const uint32_t end = done + s->symbols[i].size;
        uint32_t first = b->lacks_bytes ? byte_at(text + begin, prefix, &from, done) : done;
        uint32_t last = b->lacks_bytes ? byte_at(text + begin, prefix, &to, end - 1) : end - 1;
        done = end;
        first = begin + (first > 0 ? first - (uint32_t)prefix : 0);
        last = begin + (last > 0 ? last - (uint32_t)prefix : 0);
        for (tfi_utf8_decode(text + at, &c_size); at + c_size <= first; tfi_utf8_decode(text + at, &c_size), chars++)
            at += c_size;
        const uint32_t byte_begin = at, char_begin = chars;
        for (; at + c_size <= last; tfi_utf8_decode(text + at, &c_size), chars++) at += c_size;
        put(x, s->symbols[i].id, byte_begin, at + c_size, char_begin, chars + 1);
    }
    return TF_STATUS_OK;
}

/* Words. */

/* The token that the whole word is, or TFI_TRIE_NONE. */
static inline int32_t whole_word(const tfi_bpe *b, int prefix, const uint8_t *word, uint32_t size)
{
    uint32_t node = prefix ? b->space_node : TFI_TRIE_ROOT;

    if (size == 0 || (prefix && node == TFI_TRIE_ROOT)) return TFI_TRIE_NONE;
    for (uint32_t i = 0; i < size; i++)
        if (!(node = tfi_trie_step(&b->words, node, word[i]))) return TFI_TRIE_NONE;
    return b->words.values[node];
}

static tf_status put_word(tfi_reading *x, int prefix, uint32_t begin, uint32_t end)
{
    const tfi_bpe *b = &x->t->bpe;
    const uint32_t chars = tfi_utf8_count(x->text + begin, end - begin);
    const int32_t id = whole_word(b, prefix, x->text + begin, end - begin);
    tf_status status;

    if (id != TFI_TRIE_NONE) {
        if ((status = tfi_reserve_tokens(x->s, 1)) < 0) return status;
        put(x, id, begin, end, x->chars, x->chars + chars);
    } else {
        if ((status = merge_word(b, x->s, prefix, x->text + begin, end - begin)) < 0) return status;
        if ((status = put_symbols(x, prefix, begin)) < 0) return status;
    }
    x->chars += chars;
    x->word++;
    return TF_STATUS_OK;
}

static inline int class_at(const tfi_bpe *b, const uint8_t *at, uint32_t *size)
{
    if (*at < 128) return *size = 1, b->ascii_class[*at];
    return tfi_unicode_class(b->classes, tfi_utf8_decode(at, size));
}

/* 's, 't, 're, 've, 'm, 'll, 'd: how long the one at an apostrophe is, or 0. */
static uint32_t contraction(const uint8_t *at, uint32_t size)
{
    if (size < 2) return 0;
    if (at[1] == 's' || at[1] == 't' || at[1] == 'm' || at[1] == 'd') return 2;
    if (size < 3) return 0;
    return ((at[1] == 'r' || at[1] == 'v') && at[2] == 'e') || (at[1] == 'l' && at[2] == 'l') ? 3 : 0;
}

/* Where the word that begins at `at` ends, by the pattern
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * prefix: a space goes before text[at], which is not in the text; the word may be that space alone. */
static uint32_t word_end(const tfi_bpe *b, const uint8_t *text, uint32_t at, uint32_t end, int prefix)
{
    uint32_t size = 1, last;

    if (!prefix && text[at] == '\'') {
        const uint32_t n = contraction(text + at, end - at);
        if (n > 0) return at + n;
    }
    if (!prefix && text[at] == ' ' && at + 1 < end && class_at(b, text + at + 1, &size) != TFI_CLASS_SPACE) at++;
    const int class = class_at(b, text + at, &size);
    if (class != TFI_CLASS_SPACE) {
        for (at += size; at < end && class_at(b, text + at, &size) == class;) at += size;
        return at;
    }
    /* White space leaves its last code point to the word behind it, if there is another one to be left. */
    const uint32_t begin = at;
    for (last = at; at < end && class_at(b, text + at, &size) == TFI_CLASS_SPACE; at += size) last = at;
    return at < end && (last > begin || prefix) ? last : at;
}

tf_status tfi_bpe_segment(tfi_reading *x, uint32_t begin, uint32_t end)
{
    const tfi_bpe *b = &x->t->bpe;
    int prefix = b->prefix_space && x->text[begin] != ' ';
    tf_status status;

    while (begin < end) {
        const uint32_t stop = b->use_pattern ? word_end(b, x->text, begin, end, prefix) : end;
        if ((status = put_word(x, prefix, begin, stop)) < 0) return status;
        prefix = 0;
        begin = stop;
    }
    return TF_STATUS_OK;
}

/* Opening. */

static void find_bytes(tf_tokenizer *t)
{
    tfi_bpe *b = &t->bpe;

    for (int i = 0; i < 256; i++) {
        uint8_t spelled[4];
        const uint32_t size = tfi_utf8_encode(tfi_byte_spelling((uint8_t)i), spelled);
        b->byte_id[i] = tfi_trie_find(&t->vocab, spelled, size);
        b->lacks_bytes |= b->byte_id[i] == TFI_TRIE_NONE;
    }
    for (uint32_t c = 0; c < 128; c++) b->ascii_class[c] = tfi_unicode_class(b->classes, c);
}

/* The bytes that a token spells, in s->normal; 0 if it is no spelling. */
static tf_status spelled_bytes(tfi_scratch *s, const uint8_t *token, uint32_t size, size_t *bytes)
{
    const tf_status status = tfi_reserve(s->memory, (void **)&s->normal, &s->normal_capacity, size + 1, 1);
    uint32_t c_size;

    *bytes = 0;
    if (status < 0) return status;
    for (uint32_t at = 0; at < size; at += c_size) {
        const int byte = tfi_spelled_byte(tfi_utf8_decode(token + at, &c_size));
        if (byte < 0) return *bytes = 0, TF_STATUS_OK;
        s->normal[(*bytes)++] = (uint8_t)byte;
    }
    return TF_STATUS_OK;
}

/* Learn whether the token is what its bytes merge into. */
static tf_status learn_word(tf_tokenizer *t, tfi_scratch *s, int32_t id)
{
    const uint8_t *token = (const uint8_t *)t->text + t->text_begin[id];
    const uint32_t size = t->text_begin[id + 1] - t->text_begin[id] - 1;
    size_t bytes;
    int32_t *value;
    tf_status status;

    if ((status = spelled_bytes(s, token, size, &bytes)) < 0 || bytes == 0) return status;
    if (s->normal[0] == ' ' || s->normal[bytes - 1] == ' ') t->token_flags[id] |= TFI_TOKEN_SPACED;
    if ((status = merge_word(&t->bpe, s, 0, s->normal, bytes)) < 0) return status;
    if (t->bpe.ignore_merges ? tfi_trie_find(&t->vocab, token, size) != id
                             : (s->symbol_count != bytes || s->symbols[0].next != NOBODY || s->symbols[0].id != id))
        return TF_STATUS_OK;
    if ((status = tfi_trie_add(&t->bpe.words, s->normal, bytes, &value)) < 0) return status;
    *value = id;
    return TF_STATUS_OK;
}

tf_status tfi_bpe_finish(tf_tokenizer *t)
{
    tfi_scratch s = {.memory = t->memory};
    tf_status status;

    t->bpe.classes = &t->more;
    if (t->is_general) return tfi_bpe_finish_words(t);
    find_bytes(t);
    if ((status = tfi_trie_open(&t->bpe.words, t->memory, t->vocab.nodes)) < 0) return status;
    for (int32_t i = 0; i < t->vocab_size && status == TF_STATUS_OK; i++)
        if (t->token_flags[i] & TFI_TOKEN_PRESENT) status = learn_word(t, &s, i);
    if (status == TF_STATUS_OK) t->bpe.space_node = tfi_trie_walk(&t->bpe.words, (const uint8_t *)" ", 1);
    tfi_scratch_close(&s);
    return status;
}
