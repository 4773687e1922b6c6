/* The normalizers of tokenizers' Unigram pipelines, and libsentencepiece's own, with for each code point of the normal form the
 * one of the text that it came from.
 *
 * A step reads s->marks and writes s->sorted, which then change places. Where a step takes more or fewer code points than it
 * gives, whose range the new ones have follows the reference's NormalizedString::transform, its oddities included. */
#include <string.h>

#include "tokenizer/tokenizer.h"

typedef struct pass {
    const tf_tokenizer *t;
    tfi_scratch *s;
    const tfi_range *range;
    uint32_t from; /* of s->marks: the code point whose range the next one to be written has */
    int *lost;     /* out: code points that were removed before anything was written shift all ranges behind them */
    int inserted;  /* the last one written was more than there had been */
} pass;

static tf_status reserve_out(pass *p, size_t more)
{
    tfi_scratch *s = p->s;

    return tfi_reserve(s->memory, (void **)&s->sorted, &s->sorted_capacity, s->sorted_count + more, sizeof *s->sorted);
}

/* Write `c` with the range of code point `from`. Room was made. */
static void put(pass *p, uint32_t c, uint32_t from)
{
    tfi_mark *m = &p->s->sorted[p->s->sorted_count++];

    *m = p->s->marks[from];
    m->c = c;
}

/* `old` code points give way to nothing. Where one too many was written before them, that is now one of theirs. */
static void drop(pass *p, uint32_t old)
{
    tfi_scratch *s = p->s;

    if (s->sorted_count == 0 && p->range->is_first) {
        *p->lost = 1;
        return;
    }
    if (p->inserted) {
        tfi_mark *last = &s->sorted[s->sorted_count - 1];
        const uint32_t c = last->c;
        *last = s->marks[p->from];
        last->c = c;
    }
    p->inserted = 0;
    p->from += old;
}

/* `old` code points give way to UTF-8 text. */
static tf_status replace(pass *p, uint32_t old, const uint8_t *text, uint32_t size)
{
    uint32_t c_size, n = 0;
    const tf_status status = reserve_out(p, size);

    if (status < 0) return status;
    if (size == 0) return drop(p, old), TF_STATUS_OK;
    for (uint32_t at = 0; at < size; at += c_size, n++)
        put(p, tfi_utf8_decode(text + at, &c_size), n < old ? p->from++ : p->from - 1);
    if (n < old) p->from += old - n;
    p->inserted = n > old;
    return TF_STATUS_OK;
}

static tf_status map_char(pass *p, uint32_t i)
{
    uint8_t text[4];
    uint32_t size;
    size_t matched;
    const uint32_t c = p->s->marks[i].c, n = tfi_utf8_encode(c, text);
    const uint8_t *new = tfi_charsmap_find(&p->t->unigram.map, text, n, 0, &matched, &size);
    tf_status status;

    if (new) return replace(p, 1, new, size);
    if ((status = reserve_out(p, 1)) < 0) return status;
    put(p, c, p->from++);
    p->inserted = 0;
    return TF_STATUS_OK;
}

/* The map, as tokenizers applies it: a grapheme of less than six bytes gives way as a whole to what its shortest member in the
 * map stands for; of all others each code point alone. */
static tf_status map_chars(pass *p)
{
    enum { GRAPHEME_MAX = 6 };
    const tfi_mark *m = p->s->marks;
    const uint32_t n = (uint32_t)p->s->mark_count;
    int32_t state = 0;
    uint8_t text[GRAPHEME_MAX + 4];
    uint32_t size = 0;
    size_t matched;
    tf_status status;

    for (uint32_t i = 0, end; i < n; i = end) {
        uint32_t bytes = tfi_utf8_encode(m[i].c, text);
        for (end = i + 1; end < n && !tfi_unicode_is_break(m[end - 1].c, m[end].c, &state); end++)
            if (bytes < GRAPHEME_MAX) bytes += tfi_utf8_encode(m[end].c, text + bytes);
        if (end > i + 1 && bytes < GRAPHEME_MAX) {
            const uint8_t *new = tfi_charsmap_find(&p->t->unigram.map, text, bytes, 0, &matched, &size);
            if (new) {
                if ((status = replace(p, end - i, new, size)) < 0) return status;
                continue;
            }
        }
        for (; i < end; i++)
            if ((status = map_char(p, i)) < 0) return status;
    }
    return TF_STATUS_OK;
}

static tf_status lower_chars(pass *p)
{
    const tfi_scratch *s = p->s;
    uint32_t lower[TFI_LOWER_MAX];
    tf_status status;

    if ((status = reserve_out(p, s->mark_count * TFI_LOWER_MAX)) < 0) return status;
    for (uint32_t i = 0; i < s->mark_count; i++) {
        const uint32_t c = s->marks[i].c;
        const int is_lowered = tfi_unicode_flags(&p->t->unicode, c) & TFI_UNICODE_LOWERED;
        const int n = is_lowered ? tfi_unicode_lower(c, lower) : (lower[0] = c, 1);
        for (int k = 0; k < n; k++) put(p, lower[k], i);
    }
    return TF_STATUS_OK;
}

/* What Nmt does to a code point: 0 if it goes. */
static uint32_t nmt_char(uint32_t c)
{
    if ((c >= 1 && c <= 8) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f) return 0;
    if (c == 0x09 || c == 0x0a || c == 0x0c || c == 0x0d || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 ||
        c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd)
        return ' ';
    return c;
}

static tf_status nmt_chars(pass *p)
{
    const tfi_scratch *s = p->s;
    const tf_status status = reserve_out(p, s->mark_count);

    if (status < 0) return status;
    for (uint32_t i = 0; i < s->mark_count; i++) {
        const uint32_t c = nmt_char(s->marks[i].c);
        if (c || s->marks[i].c == 0) put(p, c, i);
    }
    return TF_STATUS_OK;
}

static int is_space(const pass *p, uint32_t i)
{
    return tfi_unicode_flags(&p->t->unicode, p->s->marks[i].c) & TFI_UNICODE_SPACE;
}

static tf_status strip_spaces(pass *p, const tfi_step *step)
{
    uint32_t begin = 0, end = (uint32_t)p->s->mark_count;
    tf_status status;

    while (step->left && p->range->is_first && begin < end && is_space(p, begin)) begin++;
    while (step->right && p->range->is_last && begin < end && is_space(p, end - 1)) end--;
    if ((status = reserve_out(p, end - begin)) < 0) return status;
    for (uint32_t i = begin; i < end; i++) put(p, p->s->marks[i].c, i);
    return TF_STATUS_OK;
}

/* How many code points at `at` the step replaces; 0 if none. */
static uint32_t match(const pass *p, const tfi_step *step, uint32_t at)
{
    const tfi_mark *m = p->s->marks;
    const uint32_t n = (uint32_t)p->s->mark_count;
    uint32_t size = 0;

    if (step->run) {
        while (at + size < n && m[at + size].c == step->from[0]) size++;
        return size >= 2 ? size : 0;
    }
    if (n - at < step->from_count) return 0;
    while (size < step->from_count && m[at + size].c == step->from[size]) size++;
    return size == step->from_count ? size : 0;
}

static tf_status replace_text(pass *p, const tfi_step *step)
{
    const uint32_t n = (uint32_t)p->s->mark_count;
    tf_status status;

    for (uint32_t i = 0; i < n;) {
        const uint32_t size = match(p, step, i);
        if ((status = reserve_out(p, step->to_count + 1)) < 0) return status;
        for (uint32_t k = 0; size && k < step->to_count; k++) put(p, step->to[k], i + size - 1);
        if (!size) put(p, p->s->marks[i].c, i);
        i += size ? size : 1;
    }
    return TF_STATUS_OK;
}

static tf_status run_step(pass *p, const tfi_step *step)
{
    tfi_scratch *s = p->s;
    tf_status status;

    s->sorted_count = 0;
    p->from = 0;
    p->inserted = 0;
    switch (step->kind) {
    case TFI_STEP_CHARSMAP:
        status = map_chars(p);
        break;
    case TFI_STEP_LOWERCASE:
        status = lower_chars(p);
        break;
    case TFI_STEP_NMT:
        status = nmt_chars(p);
        break;
    case TFI_STEP_STRIP:
        status = strip_spaces(p, step);
        break;
    default:
        status = replace_text(p, step);
        break;
    }
    tfi_mark *const marks = s->marks;
    const size_t capacity = s->mark_capacity;
    s->marks = s->sorted;
    s->mark_count = s->sorted_count;
    s->mark_capacity = s->sorted_capacity;
    s->sorted = marks;
    s->sorted_capacity = capacity;
    return status;
}

/* The code points of a text with their ranges. */
static tf_status read_chars(tfi_scratch *s, const uint8_t *text, uint32_t begin, uint32_t end, uint32_t chars)
{
    uint32_t size;
    const tf_status status = tfi_reserve(s->memory, (void **)&s->marks, &s->mark_capacity, end - begin, sizeof *s->marks);

    s->mark_count = 0;
    if (status < 0) return status;
    for (uint32_t at = begin; at < end; at += size)
        s->marks[s->mark_count++] =
            (tfi_mark){.c = tfi_utf8_decode(text + at, &size), .byte_begin = at, .byte_end = at + size, .index = chars++};
    return TF_STATUS_OK;
}

/* s->marks as s->normal with s->chars. */
static tf_status write_chars(const tf_tokenizer *t, tfi_scratch *s)
{
    tf_status status = tfi_reserve(s->memory, (void **)&s->chars, &s->char_capacity, s->mark_count + 1, sizeof *s->chars);

    if (status < 0) return status;
    if ((status = tfi_reserve(s->memory, (void **)&s->normal, &s->normal_capacity, 4 * s->mark_count + 4, 1)) < 0)
        return status;
    s->normal_size = s->char_count = 0;
    for (size_t i = 0; i < s->mark_count; i++) {
        const tfi_mark *m = &s->marks[i];
        s->chars[s->char_count++] = (tfi_char){.at = (uint32_t)s->normal_size,
                                               .byte_begin = m->byte_begin,
                                               .byte_end = m->byte_end,
                                               .index = m->index,
                                               .flags = tfi_unicode_flags(&t->unicode, m->c)};
        s->normal_size += tfi_utf8_encode(m->c, s->normal + s->normal_size);
    }
    return TF_STATUS_OK;
}

tf_status tfi_unigram_normalize(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, const tfi_range *range,
                                uint32_t *chars, int *lost)
{
    pass p = {.t = t, .s = s, .range = range, .lost = lost};
    tf_status status = read_chars(s, text, range->begin, range->end, *chars);

    *lost = 0;
    if (status < 0) return status;
    *chars += (uint32_t)s->mark_count;
    for (int i = 0; i < t->unigram.step_count; i++)
        if ((status = run_step(&p, &t->unigram.steps[i])) < 0) return status;
    return write_chars(t, s);
}

/* libsentencepiece's normalizer. */

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
    pass p = {.t = t, .s = s};
    tf_status status = read_chars(s, text, begin, end, *chars);

    if (status < 0) return status;
    *chars += (uint32_t)s->mark_count;
    if (t->unigram.lowercase && (status = run_step(&p, &(tfi_step){.kind = TFI_STEP_LOWERCASE})) < 0) return status;
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
