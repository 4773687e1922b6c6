/* libsentencepiece's own normalizer, for .model files whose rules hold: its character map with user-defined pieces left alone,
 * spaces made one and marked, and for each code point of the normal form the place in the text that was reached. */
#include <string.h>

#include "tokenizer/tokenizer.h"

typedef struct prefix {
    const uint8_t *text; /* what the matched bytes read as */
    uint32_t size, matched;
} prefix;

/* What `text` begins with: a user-defined piece, the longest member of the map, or a code point as it is. */
static inline prefix next_prefix(const tfi_unigram *u, const uint8_t *text, uint32_t size)
{
    prefix p = {.text = text};
    size_t matched = 0;

    if (u->user_count && tfi_trie_longest(&u->user, TFI_TRIE_ROOT, text, size, &p.size) != TFI_TRIE_NONE) {
        p.matched = p.size;
    } else if ((p.text = tfi_charsmap_find(&u->map, text, size, 1, &matched, &p.size)) != NULL) {
        p.matched = (uint32_t)matched;
    } else {
        p.text = text;
        tfi_utf8_decode(text, &p.size);
        p.matched = p.size;
    }
    return p;
}

/* Append one code point of the normal form, with the place in the text that was reached. */
static tf_status put_normal(const tf_tokenizer *t, tfi_scratch *s, uint32_t c, const tfi_mark *from)
{
    const tfi_unigram *u = &t->unigram;
    tf_status status = tfi_reserve(s->memory, (void **)&s->chars, &s->char_capacity, s->char_count + 2, sizeof *s->chars);

    if (status < 0) return status;
    if ((status = tfi_reserve(s->memory, (void **)&s->normal, &s->normal_capacity, s->normal_size + 4, 1)) < 0) return status;
    if (c == ' ' && u->escape_spaces) c = u->mark;
    s->chars[s->char_count++] = (tfi_char){.at = (uint32_t)s->normal_size,
                                           .byte_begin = from->byte_begin,
                                           .index = from->index,
                                           .flags = c == (u->escape_spaces ? u->mark : ' ')};
    s->normal_size += tfi_utf8_encode(c, s->normal + s->normal_size);
    return TF_STATUS_OK;
}

static tf_status put_prefix(const tf_tokenizer *t, tfi_scratch *s, prefix p, const tfi_mark *from, int *after_space)
{
    uint32_t size, at = 0;
    tf_status status;

    while (*after_space && at < p.size && p.text[at] == ' ') at++;
    if (at < p.size) *after_space = p.text[p.size - 1] == ' ';
    for (; at < p.size; at += size)
        if ((status = put_normal(t, s, tfi_utf8_decode(p.text + at, &size), from)) < 0) return status;
    return TF_STATUS_OK;
}

/* The text, lower-cased if that is asked for, in s->piece, with where each code point came from in s->marks and one mark more.
 */
static tf_status read_text(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, uint32_t begin, uint32_t end,
                           uint32_t *chars)
{
    tf_status status = tfi_read_chars(s, text, begin, end, *chars);

    if (status < 0) return status;
    *chars += (uint32_t)s->mark_count;
    if (t->unigram.lowercase && (status = tfi_lower_chars(t, s)) < 0) return status;
    if ((status = tfi_reserve(s->memory, (void **)&s->marks, &s->mark_capacity, s->mark_count + 1, sizeof *s->marks)) < 0 ||
        (status = tfi_reserve(s->memory, (void **)&s->piece, &s->piece_capacity, 4 * s->mark_count + 4, 1)) < 0 ||
        (status = tfi_reserve(s->memory, (void **)&s->chars, &s->char_capacity, 1, sizeof *s->chars)) < 0)
        return status;
    s->marks[s->mark_count] = (tfi_mark){.byte_begin = end, .byte_end = end, .index = *chars};
    s->piece_size = s->normal_size = s->char_count = 0;
    for (size_t i = 0; i < s->mark_count; i++) s->piece_size += tfi_utf8_encode(s->marks[i].c, s->piece + s->piece_size);
    return TF_STATUS_OK;
}

tf_status tfi_spm_normalize(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, uint32_t begin, uint32_t end,
                            uint32_t *chars)
{
    const tfi_unigram *u = &t->unigram;
    int after_space = u->remove_extra_spaces, is_begun = !after_space;
    tf_status status = read_text(t, s, text, begin, end, chars);
    const tfi_mark *m = s->marks;
    prefix p;

    if (status < 0) return status;
    const tfi_mark *last = s->marks + s->mark_count;
    for (uint32_t at = 0; at < s->piece_size; at += p.matched) {
        p = next_prefix(u, s->piece + at, (uint32_t)s->piece_size - at);
        if (!is_begun && p.size == 1 && p.text[0] == ' ') {
            m += tfi_utf8_count(s->piece + at, p.matched);
            continue; /* spaces at the begin */
        }
        if ((at == 0 || !is_begun) && !u->space_is_suffix && u->dummy_prefix && (status = put_normal(t, s, ' ', m)) < 0)
            return status;
        is_begun = 1;
        if ((status = put_prefix(t, s, p, m, &after_space)) < 0) return status;
        m += tfi_utf8_count(s->piece + at, p.matched);
        if (!u->remove_extra_spaces) after_space = 0;
    }
    if (!is_begun) return TF_STATUS_OK;
    tfi_mark stop = *last;
    while (u->remove_extra_spaces && s->char_count && s->chars[s->char_count - 1].flags) {
        const tfi_char *space = &s->chars[--s->char_count];
        s->normal_size = space->at;
        stop = (tfi_mark){.byte_begin = space->byte_begin, .index = space->index};
    }
    if (u->space_is_suffix && u->dummy_prefix && (status = put_normal(t, s, ' ', &stop)) < 0) return status;
    s->chars[s->char_count] = (tfi_char){.at = (uint32_t)s->normal_size, .byte_begin = stop.byte_begin, .index = stop.index};
    return TF_STATUS_OK;
}
