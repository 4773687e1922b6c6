/* Text to tokens: the added tokens in it, and for what is between them BERT's normalizer, its splitting into words, and
 * WordPiece; the other models have files of their own.
 *
 * ASCII words take the short way: one pass that folds and walks the vocabulary. Whatever holds another byte is cut out up to
 * the next ASCII space or punctuation and takes the long way: a normal form with, for each of its code points, the code point
 * of the text it came from. Both ways allocate nothing a word; the long way's buffers hold one cut-out. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

enum { ASCII_WORD_MAX = 256, CUT_AIM = 4096 };

tf_status tfi_reserve(tfi_memory *memory, void **data, size_t *capacity, size_t need, size_t element_size)
{
    size_t wanted = *capacity * 2 > 64 ? *capacity * 2 : 64;

    if (need <= *capacity) return TF_STATUS_OK;
    if (wanted < need) wanted = need;
    if (wanted > (size_t)INT64_MAX / 4 / element_size)
        return tfi_fail(TF_STATUS_NOMEM, "out of memory: %zu elements of %zu bytes", wanted, element_size);
    void *grown = tfi_realloc(memory, *data, *capacity * element_size, wanted * element_size);
    if (!grown) return TF_STATUS_NOMEM;
    *data = grown;
    *capacity = wanted;
    return TF_STATUS_OK;
}

void tfi_scratch_close(tfi_scratch *s)
{
    tfi_free(s->memory, s->tokens, s->token_capacity * sizeof *s->tokens);
    tfi_free(s->memory, s->nodes, s->node_capacity * sizeof *s->nodes);
    tfi_free(s->memory, s->piece, s->piece_capacity);
    tfi_free(s->memory, s->points, s->point_capacity * sizeof *s->points);
    tfi_free(s->memory, s->normal, s->normal_capacity);
    tfi_free(s->memory, s->chars, s->char_capacity * sizeof *s->chars);
    tfi_free(s->memory, s->marks, s->mark_capacity * sizeof *s->marks);
    tfi_free(s->memory, s->sorted, s->sorted_capacity * sizeof *s->sorted);
    tfi_free(s->memory, s->repaired, s->repaired_capacity);
    tfi_free(s->memory, s->repairs, s->repair_capacity * sizeof *s->repairs);
    tfi_free(s->memory, s->symbols, s->symbol_capacity * sizeof *s->symbols);
    tfi_free(s->memory, s->heap, s->heap_capacity * sizeof *s->heap);
    tfi_free(s->memory, s->words, TFI_WORDS * sizeof *s->words);
    tfi_mecab_lattice_close(s->lattice);
    tfi_free(s->memory, s->forms, s->form_capacity * sizeof *s->forms);
    tfi_free(s->memory, s->spans, s->span_capacity * sizeof *s->spans);
    tfi_free(s->memory, s->divided, s->divided_capacity * sizeof *s->divided);
    tfi_free(s->memory, s->new_chars, s->new_char_capacity * sizeof *s->new_chars);
    tfi_free(s->memory, s->new_normal, s->new_normal_capacity);
    tfi_free(s->memory, s->classes, s->class_capacity);
    tfi_pattern_scratch_close(s);
    *s = (tfi_scratch){.memory = s->memory};
}

/* The normal form. */

typedef struct origin {
    uint32_t byte_begin, byte_end, index;
} origin;

static tf_status reserve_chars(tfi_scratch *s, size_t more)
{
    tf_status status = tfi_reserve(s->memory, (void **)&s->chars, &s->char_capacity, s->char_count + more, sizeof *s->chars);
    if (status < 0) return status;
    return tfi_reserve(s->memory, (void **)&s->normal, &s->normal_capacity, s->normal_size + 4 * more, 1);
}

/* Room was reserved. */
static void put(const tf_tokenizer *t, tfi_scratch *s, uint32_t c, origin from)
{
    s->chars[s->char_count++] = (tfi_char){.at = (uint32_t)s->normal_size,
                                           .byte_begin = from.byte_begin,
                                           .byte_end = from.byte_end,
                                           .index = from.index,
                                           .flags = tfi_unicode_flags(&t->unicode, c)};
    s->normal_size += tfi_utf8_encode(c, s->normal + s->normal_size);
}

/* The last two steps for one code point: strip it or lower it. */
static void finish(const tf_tokenizer *t, tfi_scratch *s, uint32_t c, origin from)
{
    const uint8_t flags = tfi_unicode_flags(&t->unicode, c);
    uint32_t lower[TFI_LOWER_MAX];

    if (t->strip_accents && flags & TFI_UNICODE_STRIPPED) return;
    if (!t->lowercase || !(flags & TFI_UNICODE_LOWERED)) {
        put(t, s, c, from);
        return;
    }
    const int n = tfi_unicode_lower(c, lower);
    for (int i = 0; i < n; i++) put(t, s, lower[i], from);
}

/* Put the waiting marks in canonical order. Origins stay where they are and the code points move below them, as in the
 * reference: the first of each decomposition takes the next origin, the others that of the one before. */
static tf_status flush_marks(const tf_tokenizer *t, tfi_scratch *s)
{
    size_t begin[257] = {0}, next = 0, kept = 0;
    tf_status status;

    for (size_t i = 0; i < s->mark_count; i++) kept += !(tfi_unicode_flags(&t->unicode, s->marks[i].c) & TFI_UNICODE_STRIPPED);
    if (kept == 0) { /* nearly always: the order of what is dropped does not matter */
        s->mark_count = 0;
        return TF_STATUS_OK;
    }
    if ((status = reserve_chars(s, s->mark_count * TFI_LOWER_MAX)) < 0) return status;
    if ((status = tfi_reserve(s->memory, (void **)&s->sorted, &s->sorted_capacity, s->mark_count, sizeof *s->sorted)) < 0)
        return status;
    for (size_t i = 0; i < s->mark_count; i++) begin[s->marks[i].combining + 1]++;
    for (int i = 1; i < 257; i++) begin[i] += begin[i - 1];
    for (size_t i = 0; i < s->mark_count; i++) s->sorted[begin[s->marks[i].combining]++] = s->marks[i];
    origin from = {s->marks[0].byte_begin, s->marks[0].byte_end, s->marks[0].index};
    for (size_t i = 0; i < s->mark_count; i++) {
        if (!s->sorted[i].inserted) {
            while (s->marks[next].inserted) next++;
            from = (origin){s->marks[next].byte_begin, s->marks[next].byte_end, s->marks[next].index};
            next++;
        }
        finish(t, s, s->sorted[i].c, from);
    }
    s->mark_count = 0;
    return TF_STATUS_OK;
}

/* One code point of a decomposition, or one that needs none. */
static tf_status compose_part(const tf_tokenizer *t, tfi_scratch *s, uint32_t c, origin from, int inserted)
{
    tf_status status;

    if (tfi_unicode_flags(&t->unicode, c) & TFI_UNICODE_NONSTARTER) {
        if ((status = tfi_reserve(s->memory, (void **)&s->marks, &s->mark_capacity, s->mark_count + 1, sizeof *s->marks)) < 0)
            return status;
        s->marks[s->mark_count++] = (tfi_mark){.c = c,
                                               .combining = (uint16_t)tfi_unicode_combining(c),
                                               .inserted = (uint16_t)inserted,
                                               .byte_begin = from.byte_begin,
                                               .byte_end = from.byte_end,
                                               .index = from.index};
        return TF_STATUS_OK;
    }
    if ((status = flush_marks(t, s)) < 0 || (status = reserve_chars(s, TFI_LOWER_MAX)) < 0) return status;
    finish(t, s, c, from);
    return TF_STATUS_OK;
}

static tf_status decompose(const tf_tokenizer *t, tfi_scratch *s, uint32_t c, origin from)
{
    uint32_t parts[TFI_DECOMPOSITION_MAX] = {c};
    tf_status status;

    if (!t->strip_accents) {
        if ((status = reserve_chars(s, TFI_LOWER_MAX)) < 0) return status;
        finish(t, s, c, from);
        return TF_STATUS_OK;
    }
    const int n = tfi_unicode_flags(&t->unicode, c) & TFI_UNICODE_DECOMPOSES ? tfi_unicode_decompose(c, 0, parts) : 1;
    for (int i = 0; i < n; i++)
        if ((status = compose_part(t, s, parts[i], from, i > 0)) < 0) return status;
    return TF_STATUS_OK;
}

tf_status tfi_normalize(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, uint32_t begin, uint32_t end,
                        uint32_t *chars)
{
    tf_status status;
    uint32_t size;

    s->normal_size = s->char_count = s->mark_count = 0;
    for (uint32_t at = begin; at < end; at += size) {
        uint32_t c = tfi_utf8_decode(text + at, &size);
        const origin from = {at, at + size, (*chars)++};
        if (t->clean_text) {
            const uint8_t flags = tfi_unicode_flags(&t->unicode, c);
            if (flags & TFI_UNICODE_REMOVED) continue;
            if (flags & TFI_UNICODE_SPACE) c = ' ';
        }
        const int cjk = t->split_cjk && tfi_unicode_is_cjk(c);
        if (cjk && (status = decompose(t, s, ' ', from)) < 0) return status;
        if ((status = decompose(t, s, c, from)) < 0) return status;
        if (cjk && (status = decompose(t, s, ' ', from)) < 0) return status;
    }
    return flush_marks(t, s);
}

/* Words to tokens. */

/* The longest piece of the vocabulary at the start of `text`. */
static inline int32_t longest_piece(const tf_tokenizer *t, int inner, const uint8_t *text, uint32_t size, uint32_t *length)
{
    if (!inner) return tfi_trie_longest(&t->vocab, TFI_TRIE_ROOT, text, size, length);
    return t->has_inner ? tfi_trie_longest(&t->vocab, t->inner_node, text, size, length) : TFI_TRIE_NONE;
}

/* A word of ASCII bytes [begin, end). */
static tf_status ascii_word(tfi_reading *x, uint32_t begin, uint32_t end)
{
    const tf_tokenizer *t = x->t;
    const uint32_t n = end - begin, chars = x->chars;
    const size_t first = x->s->token_count;
    uint8_t word[ASCII_WORD_MAX];
    uint32_t length = 0;
    tf_status status;

    x->chars += n;
    int32_t id = n > t->word_chars_max ? TFI_TRIE_NONE : 0;
    if ((status = tfi_reserve_tokens(x->s, id == 0 ? n : 1)) < 0) return status;
    if (id == 0)
        for (uint32_t i = 0; i < n; i++) word[i] = t->ascii_fold[x->text[begin + i]];
    for (uint32_t at = 0; at < n && id != TFI_TRIE_NONE; at += length) {
        id = longest_piece(t, at > 0, word + at, n - at, &length);
        if (id != TFI_TRIE_NONE) tfi_put_token(x, id, begin + at, begin + at + length, chars + at, chars + at + length);
    }
    if (id == TFI_TRIE_NONE) {
        x->s->token_count = first;
        tfi_put_token(x, t->unk_id, begin, end, chars, chars + n);
    }
    x->word++;
    return TF_STATUS_OK;
}

/* A word of the normal form: its code points [begin, end). */
tf_status tfi_wordpiece_word(tfi_reading *x, size_t begin, size_t end)
{
    const tf_tokenizer *t = x->t;
    tfi_scratch *s = x->s;
    const tfi_char *c = s->chars + begin, *last = s->chars + end - 1;
    const size_t first = s->token_count;
    const uint32_t stop = end < s->char_count ? s->chars[end].at : (uint32_t)s->normal_size;
    uint32_t at = c->at, length = 0;
    tf_status status;

    if ((int64_t)(end - begin) > t->word_chars_max) at = stop + 1;
    else if ((status = tfi_reserve_tokens(s, end - begin)) < 0) return status;
    while (at < stop) {
        const tfi_char *from = c;
        const int32_t id = longest_piece(t, at > s->chars[begin].at, s->normal + at, stop - at, &length);
        if (id == TFI_TRIE_NONE) break;
        at += length;
        while (c <= last && c->at < at) c++;
        tfi_put_token(x, id, from->byte_begin, c[-1].byte_end, from->index, c[-1].index + 1);
    }
    if (at != stop) {
        s->token_count = first;
        if ((status = tfi_reserve_tokens(s, 1)) < 0) return status;
        c = s->chars + begin;
        tfi_put_token(x, t->unk_id, c->byte_begin, last->byte_end, c->index, last->index + 1);
    }
    x->word++;
    return TF_STATUS_OK;
}

/* Split the code points [begin, end) of the normal form at spaces and around punctuation. */
static tf_status split_normal(tfi_reading *x, size_t begin, size_t end)
{
    tf_status status;

    for (size_t i = begin; i < end;) {
        size_t stop = i + 1;
        const uint8_t flags = x->s->chars[i].flags;
        if (flags & TFI_UNICODE_SPACE) {
            i++;
            continue;
        }
        if (!(flags & TFI_UNICODE_PUNCTUATION))
            while (stop < end && !(x->s->chars[stop].flags & (TFI_UNICODE_SPACE | TFI_UNICODE_PUNCTUATION))) stop++;
        if ((status = tfi_wordpiece_word(x, i, stop)) < 0) return status;
        i = stop;
    }
    return TF_STATUS_OK;
}

size_t tfi_char_index(const tfi_scratch *s, uint32_t at)
{
    size_t low = 0, high = s->char_count;

    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (s->chars[middle].at < at) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The long way for text[begin, end). */
static tf_status normal_segment(tfi_reading *x, uint32_t begin, uint32_t end)
{
    const tf_tokenizer *t = x->t;
    tfi_scratch *s = x->s;
    uint32_t taken = 0, from = 0;
    tf_status status;
    tfi_match m;

    if ((status = tfi_normalize(t, s, x->text, begin, end, &x->chars)) < 0) return status;
    while (t->folded.count && tfi_added_next(t, &t->folded, s->normal, (uint32_t)s->normal_size, from, taken, &m)) {
        const size_t first = tfi_char_index(s, m.begin), last = tfi_char_index(s, m.end);
        if (taken < m.begin && (status = split_normal(x, tfi_char_index(s, taken), first)) < 0) return status;
        if ((status = tfi_reserve_tokens(s, 1)) < 0) return status;
        tfi_put_token(x, t->added[m.index].id, s->chars[first].byte_begin, s->chars[last - 1].byte_end, s->chars[first].index,
                      s->chars[last - 1].index + 1);
        x->word++;
        taken = m.end;
        from = m.resume;
    }
    return split_normal(x, tfi_char_index(s, taken), s->char_count);
}

/* Where a cut-out that begins at `at` may end: before an ASCII space or punctuation; in long text without any, before a space
 * or a Chinese character. What comes there begins a new word in any case and no mark moves across it. */
static uint32_t cut_end(const tf_tokenizer *t, const uint8_t *text, uint32_t at, uint32_t end)
{
    const uint32_t aim = end - at > CUT_AIM ? at + CUT_AIM : end;
    uint32_t size;

    for (; at < end; at += size) {
        const uint32_t c = tfi_utf8_decode(text + at, &size);
        if (c < 128) {
            if (t->ascii_class[c] == TFI_ASCII_SPACE || t->ascii_class[c] == TFI_ASCII_PUNCTUATION) break;
        } else if (at > aim &&
                   ((t->split_cjk && tfi_unicode_is_cjk(c)) ||
                    (tfi_unicode_flags(&t->unicode, c) & (TFI_UNICODE_SPACE | TFI_UNICODE_REMOVED)) == TFI_UNICODE_SPACE)) {
            break;
        }
    }
    return at;
}

/* Text without added tokens that are looked for before normalisation. */
static tf_status segment(tfi_reading *x, uint32_t at, uint32_t end)
{
    const tf_tokenizer *t = x->t;
    const uint8_t *text = x->text;
    tf_status status;

    if (t->folded.count) return normal_segment(x, at, end);
    while (at < end) {
        uint32_t stop = at;
        const int class = text[at] < 128 ? t->ascii_class[text[at]] : TFI_ASCII_REMOVED;
        if (class == TFI_ASCII_SPACE) {
            at++;
            x->chars++;
            continue;
        }
        if (class == TFI_ASCII_PUNCTUATION) {
            stop++;
        } else {
            while (stop < end && text[stop] < 128 && t->ascii_class[text[stop]] == TFI_ASCII_WORD) stop++;
            const int plain = stop == end || (text[stop] < 128 && t->ascii_class[text[stop]] != TFI_ASCII_REMOVED);
            if (!plain || (stop - at > ASCII_WORD_MAX && stop - at <= t->word_chars_max)) {
                stop = cut_end(t, text, at, end);
                if ((status = normal_segment(x, at, stop)) < 0) return status;
                at = stop;
                continue;
            }
        }
        if ((status = ascii_word(x, at, stop)) < 0) return status;
        at = stop;
    }
    return TF_STATUS_OK;
}

/* The added tokens of `set` in text[begin, end); what lies between them goes to `rest`. */
static tf_status pieces(tfi_reading *x, const tfi_added_set *set, uint32_t begin, uint32_t end,
                        tf_status (*rest)(tfi_reading *x, uint32_t begin, uint32_t end))
{
    const tf_tokenizer *t = x->t;
    const uint8_t *text = begin < end ? x->text + begin : NULL;
    const uint32_t size = end - begin;
    uint32_t taken = 0, from = 0;
    tf_status status;
    tfi_match m;

    while (set->count && tfi_added_next(t, set, text, size, from, taken, &m)) {
        if (taken < m.begin && (status = rest(x, begin + taken, begin + m.begin)) < 0) return status;
        if (m.begin < taken) x->chars -= tfi_utf8_count(text + m.begin, taken - m.begin);
        const uint32_t chars = tfi_utf8_count(text + m.begin, m.end - m.begin);
        if ((status = tfi_reserve_tokens(x->s, 1)) < 0) return status;
        tfi_token *k = tfi_put_token(x, t->added[m.index].id, begin + m.begin, begin + m.end, x->chars, x->chars + chars);
        if (t->bpe.trim) tfi_bpe_trim(x, k, text + m.begin, m.end - m.begin);
        x->chars += chars;
        x->word++;
        taken = m.end;
        from = m.resume;
    }
    return taken < size ? rest(x, begin + taken, end) : TF_STATUS_OK;
}

/* Byte-level BPE has no normalizer, and that of Japanese comes later: tokens that wait for the normal form are found in the text
 * as it is. */
static tf_status unnormalized(tfi_reading *x, uint32_t begin, uint32_t end)
{
    return pieces(x, &x->t->folded, begin, end, x->t->japanese.mecab ? tfi_japanese_segment : tfi_bpe_segment);
}

tf_status tfi_words(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, uint32_t size)
{
    tfi_reading x = {.t = t, .s = s, .text = text};

    if (t->is_general) return pieces(&x, &t->raw, 0, size, tfi_pipeline_segment);
    switch (t->model) {
    case TFI_MODEL_BPE:
        return pieces(&x, &t->raw, 0, size, unnormalized);
    case TFI_MODEL_UNIGRAM:
        return pieces(&x, &t->raw, 0, size, tfi_unigram_segment);
    case TFI_MODEL_BYT5:
        return pieces(&x, &t->raw, 0, size, tfi_byt5_segment);
    default:
        return pieces(&x, &t->raw, 0, size, t->japanese.mecab ? unnormalized : segment);
    }
}

void tfi_words_init(tf_tokenizer *t)
{
    for (uint32_t c = 0; c < 128; c++) {
        const uint8_t flags = tfi_unicode_flags(&t->unicode, c);
        t->ascii_fold[c] = (uint8_t)(t->lowercase && c >= 'A' && c <= 'Z' ? c + 32 : c);
        t->ascii_class[c] = TFI_ASCII_WORD;
        if (flags & TFI_UNICODE_SPACE) t->ascii_class[c] = TFI_ASCII_SPACE;
        if (flags & TFI_UNICODE_PUNCTUATION) t->ascii_class[c] = TFI_ASCII_PUNCTUATION;
        if (t->clean_text && flags & TFI_UNICODE_REMOVED) t->ascii_class[c] = TFI_ASCII_REMOVED;
    }
}
