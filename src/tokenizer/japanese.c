/* Text to tokens as transformers' BertJapaneseTokenizer does it: NFKC, MeCab's words, lower case, then WordPiece or single
 * characters.
 *
 * The Unicode of that class is Python's, which moves with the interpreter; here it is utf8proc's (15.0, Python 3.12's). The reference
 * gives no ranges: a token's is that of all code points of the text that became its own. */
#include "tokenizer/japanese.h"

#include <string.h>
#include <utf8proc.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

enum { DECOMPOSED_MAX = 18, SORT_MAX = 32 };

/* NFKC. */

static int is_mark(uint32_t c)
{
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);

    return p->combining_class != 0 || p->category == UTF8PROC_CATEGORY_MN || p->category == UTF8PROC_CATEGORY_MC ||
           p->category == UTF8PROC_CATEGORY_ME || (c >= 0x1161 && c <= 0x1175) || (c >= 0x11a8 && c <= 0x11c2);
}

static int decompose(uint32_t c, utf8proc_int32_t out[DECOMPOSED_MAX])
{
    int last = 0;
    const utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, out, DECOMPOSED_MAX, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, &last);

    if (n >= 1 && n <= DECOMPOSED_MAX) return (int)n;
    return out[0] = (utf8proc_int32_t)c, 1;
}

/* Stays as it is where nothing is composed with it. */
static int is_plain(uint32_t c)
{
    return c < 0xa0 || utf8proc_get_property((utf8proc_int32_t)c)->decomp_seqindex == UINT16_MAX;
}

/* Can nothing before `c` be composed with it, or move behind it? */
static int is_boundary(uint32_t c)
{
    utf8proc_int32_t parts[DECOMPOSED_MAX];

    if (c < 0x300) return 1;
    if (is_mark(c)) return 0;
    if (is_plain(c)) return 1;
    return (void)decompose(c, parts), !is_mark((uint32_t)parts[0]);
}

static int combining(utf8proc_int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

/* Put a run of marks in canonical order; `spare` has room for as many. */
static void sort_marks(utf8proc_int32_t *c, size_t n, utf8proc_int32_t *spare)
{
    size_t begin[257] = {0};

    if (n <= SORT_MAX) {
        for (size_t i = 1; i < n; i++) {
            const utf8proc_int32_t now = c[i];
            size_t at = i;
            for (; at > 0 && combining(c[at - 1]) > combining(now); at--) c[at] = c[at - 1];
            c[at] = now;
        }
        return;
    }
    for (size_t i = 0; i < n; i++) begin[combining(c[i]) + 1]++;
    for (int i = 1; i < 257; i++) begin[i] += begin[i - 1];
    for (size_t i = 0; i < n; i++) spare[begin[combining(c[i])]++] = c[i];
    memcpy(c, spare, n * sizeof *c);
}

/* Append what the code points s->marks[begin, end), which nothing outside touches, become. All of it has all of their range. */
static tf_status compose(tfi_scratch *s, size_t begin, size_t end)
{
    const size_t room = (end - begin) * DECOMPOSED_MAX;
    size_t n = 0;
    tf_status status = tfi_reserve(s->memory, (void **)&s->piece, &s->piece_capacity, 2 * room * sizeof(utf8proc_int32_t), 1);

    if (status < 0) return status;
    utf8proc_int32_t *c = (utf8proc_int32_t *)(void *)s->piece;
    for (size_t i = begin; i < end; i++) n += (size_t)decompose(s->marks[i].c, c + n);
    for (size_t i = 0, next; i < n; i = next) {
        for (next = i + 1; combining(c[i]) != 0 && next < n && combining(c[next]) != 0;) next++;
        sort_marks(c + i, next - i, c + room);
    }
    const utf8proc_ssize_t left = utf8proc_normalize_utf32(c, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (left > 0) n = (size_t)left;
    status = tfi_reserve(s->memory, (void **)&s->sorted, &s->sorted_capacity, s->sorted_count + n, sizeof *s->sorted);
    if (status < 0) return status;
    for (size_t i = 0; i < n; i++)
        s->sorted[s->sorted_count++] = (tfi_mark){.c = (uint32_t)c[i],
                                                  .byte_begin = s->marks[begin].byte_begin,
                                                  .byte_end = s->marks[end - 1].byte_end,
                                                  .index = s->marks[begin].index};
    return TF_STATUS_OK;
}

/* s->marks in NFKC. */
static tf_status compose_all(tfi_scratch *s)
{
    tf_status status = tfi_reserve(s->memory, (void **)&s->sorted, &s->sorted_capacity, s->mark_count + 1, sizeof *s->sorted);

    if (status < 0) return status;
    s->sorted_count = 0;
    for (size_t i = 0, next; i < s->mark_count; i = next) {
        for (next = i + 1; next < s->mark_count && !is_boundary(s->marks[next].c);) next++;
        if (next == i + 1 && is_plain(s->marks[i].c) && s->sorted_count < s->sorted_capacity)
            s->sorted[s->sorted_count++] = s->marks[i];
        else if ((status = compose(s, i, next)) < 0) return status;
    }
    tfi_mark *const marks = s->marks;
    const size_t capacity = s->mark_capacity;
    s->marks = s->sorted;
    s->mark_capacity = s->sorted_capacity;
    s->mark_count = s->sorted_count;
    s->sorted = marks;
    s->sorted_capacity = capacity;
    return TF_STATUS_OK;
}

/* text[begin, end) in NFKC as s->normal with s->chars, and one char more for the end. */
static tf_status normalize(tfi_reading *x, uint32_t begin, uint32_t end)
{
    tfi_scratch *s = x->s;
    uint32_t size;
    tf_status status = tfi_reserve(s->memory, (void **)&s->marks, &s->mark_capacity, end - begin, sizeof *s->marks);

    if (status < 0) return status;
    s->mark_count = s->normal_size = s->char_count = 0;
    for (uint32_t at = begin; at < end; at += size)
        s->marks[s->mark_count++] =
            (tfi_mark){.c = tfi_utf8_decode(x->text + at, &size), .byte_begin = at, .byte_end = at + size, .index = x->chars++};
    if ((status = compose_all(s)) < 0) return status;
    if ((status = tfi_reserve(s->memory, (void **)&s->chars, &s->char_capacity, s->mark_count + 1, sizeof *s->chars)) < 0 ||
        (status = tfi_reserve(s->memory, (void **)&s->normal, &s->normal_capacity, 4 * s->mark_count + 1, 1)) < 0)
        return status;
    for (size_t i = 0; i < s->mark_count; i++) {
        const tfi_mark *m = &s->marks[i];
        s->chars[s->char_count++] =
            (tfi_char){.at = (uint32_t)s->normal_size, .byte_begin = m->byte_begin, .byte_end = m->byte_end, .index = m->index};
        s->normal_size += tfi_utf8_encode(m->c, s->normal + s->normal_size);
    }
    s->chars[s->char_count] = (tfi_char){.at = (uint32_t)s->normal_size};
    return TF_STATUS_OK;
}

/* A word: its code points as s->marks. */

/* What str.split() splits at. */
static int is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static int is_cased(uint32_t c)
{
    const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

static int is_case_ignorable(uint32_t c)
{
    const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' || c == ':' ||
           c == 0xb7 || c == 0x387 || c == 0x2018 || c == 0x2019 || c == 0x2024 || c == 0x2027;
}

static uint32_t point_at(const tfi_scratch *s, size_t i)
{
    uint32_t size;
    return tfi_utf8_decode(s->normal + s->chars[i].at, &size);
}

/* Does the sigma at `i` end a word of the code points [begin, end)? */
static int is_final(const tfi_scratch *s, size_t begin, size_t end, size_t i)
{
    size_t before = i, after = i + 1;

    while (before > begin && is_case_ignorable(point_at(s, before - 1))) before--;
    while (after < end && is_case_ignorable(point_at(s, after))) after++;
    return before > begin && is_cased(point_at(s, before - 1)) && !(after < end && is_cased(point_at(s, after)));
}

/* The code points [begin, end) of the normal form, lower-cased if that is asked for. */
static tf_status read_word(const tf_tokenizer *t, tfi_scratch *s, size_t begin, size_t end)
{
    enum { SIGMA = 0x3a3, FINAL_SIGMA = 0x3c2, DOTTED_I = 0x130, DOT = 0x307 };
    const tf_status status = tfi_reserve(s->memory, (void **)&s->marks, &s->mark_capacity, 2 * (end - begin), sizeof *s->marks);

    if (status < 0) return status;
    s->mark_count = 0;
    for (size_t i = begin; i < end; i++) {
        const tfi_char *from = &s->chars[i];
        uint32_t c = point_at(s, i);
        tfi_mark m = {.byte_begin = from->byte_begin, .byte_end = from->byte_end, .index = from->index};
        const int dotted = t->japanese.lowercase && c == DOTTED_I;
        if (t->japanese.lowercase)
            c = c == SIGMA && is_final(s, begin, end, i) ? FINAL_SIGMA : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
        m.c = dotted ? 'i' : c;
        s->marks[s->mark_count++] = m;
        m.c = DOT;
        if (dotted) s->marks[s->mark_count++] = m;
    }
    return TF_STATUS_OK;
}

/* A token of the word's code points [begin, end). */
static void put_token(tfi_reading *x, int32_t id, size_t begin, size_t end)
{
    const tfi_mark *first = &x->s->marks[begin], *last = &x->s->marks[end - 1];
    const uint32_t chars = tfi_utf8_count(x->text + first->byte_begin, last->byte_end - first->byte_begin);

    tfi_put_token(x, id, first->byte_begin, last->byte_end, first->index, first->index + chars);
}

static tf_status put_characters(tfi_reading *x)
{
    tfi_scratch *s = x->s;
    uint8_t text[4];
    tf_status status;

    if (x->t->japanese.lowercase && (status = compose_all(s)) < 0) return status;
    if ((status = tfi_reserve_tokens(s, s->mark_count)) < 0) return status;
    for (size_t i = 0; i < s->mark_count; i++) {
        const uint32_t size = tfi_utf8_encode(s->marks[i].c, text);
        const int32_t id = tfi_trie_find(&x->t->vocab, text, size);
        put_token(x, id == TFI_TRIE_NONE ? x->t->unk_id : id, i, i + 1);
    }
    return TF_STATUS_OK;
}

/* WordPiece of the code points [begin, end), which have no spaces. */
static tf_status put_pieces(tfi_reading *x, size_t begin, size_t end)
{
    const tf_tokenizer *t = x->t;
    tfi_scratch *s = x->s;
    const size_t tokens = s->token_count;
    size_t at = begin;
    uint32_t size = 0, length = 0, done = 0;
    tf_status status = tfi_reserve_tokens(s, end - begin + 1);

    if (status < 0 || (status = tfi_reserve(s->memory, (void **)&s->piece, &s->piece_capacity, 4 * (end - begin), 1)) < 0)
        return status;
    for (size_t i = begin; i < end; i++) size += tfi_utf8_encode(s->marks[i].c, s->piece + size);
    while (done < size && end - begin <= (size_t)t->word_chars_max) {
        int32_t id = TFI_TRIE_NONE;
        if (done == 0) id = tfi_trie_longest(&t->vocab, TFI_TRIE_ROOT, s->piece, size, &length);
        else if (t->has_inner) id = tfi_trie_longest(&t->vocab, t->inner_node, s->piece + done, size - done, &length);
        if (id == TFI_TRIE_NONE) break;
        const size_t from = at;
        at += tfi_utf8_count(s->piece + done, length);
        done += length;
        put_token(x, id, from, at);
    }
    if (done == size) return TF_STATUS_OK;
    s->token_count = tokens;
    put_token(x, t->unk_id, begin, end);
    return TF_STATUS_OK;
}

static tf_status put_word(tfi_reading *x, size_t begin, size_t end)
{
    tfi_scratch *s = x->s;
    tf_status status = read_word(x->t, s, begin, end);

    if (status == TF_STATUS_OK && x->t->japanese.by_character) status = put_characters(x);
    for (size_t i = 0, next; i < s->mark_count && status == TF_STATUS_OK && !x->t->japanese.by_character; i = next) {
        next = i + 1;
        if (is_space(s->marks[i].c)) continue;
        while (next < s->mark_count && !is_space(s->marks[next].c)) next++;
        status = put_pieces(x, i, next);
    }
    x->word++;
    return status;
}

tf_status tfi_japanese_segment(tfi_reading *x, uint32_t begin, uint32_t end)
{
    tfi_scratch *s = x->s;
    const void *node = NULL;
    uint32_t from, to;
    size_t at = 0;
    tf_status status = normalize(x, begin, end);

    if (status < 0) return status;
    /* The reference gives MeCab a string that ends at the first NUL. */
    const uint8_t *nul = s->normal_size ? memchr(s->normal, 0, s->normal_size) : NULL;
    const size_t size = nul ? (size_t)(nul - s->normal) : s->normal_size;
    if (size > TFI_MECAB_TEXT_MAX)
        return tfi_fail(TF_STATUS_INVALID, "a text of %zu bytes in NFKC; MeCab takes at most %d", size, TFI_MECAB_TEXT_MAX);
    if (size == 0) return TF_STATUS_OK;
    if ((status = tfi_mecab_parse(x->t->japanese.mecab, &s->lattice, s->normal, (uint32_t)size)) < 0) return status;
    while (status == TF_STATUS_OK && tfi_mecab_next(s->lattice, &node, &from, &to)) {
        while (s->chars[at].at < from) at++;
        const size_t first = at;
        while (s->chars[at].at < to) at++;
        if (at > first) status = put_word(x, first, at);
    }
    return status;
}
