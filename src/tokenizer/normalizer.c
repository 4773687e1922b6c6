/* The normalizers of a tokenizer.json, with for each code point of the normal form the one of the text that it came from.
 *
 * A part reads s->marks and writes s->sorted, which then change places. Whose range a new code point has follows the reference's
 * NormalizedString::transform, its oddities included: each one written either replaces the next of the old ones and has its range,
 * or is more than there had been and has the range of the old one before it. Where there is none before it the reference's ranges
 * are empty and go wrong in what follows, so a Replace that matches nothing, and a Prepend of nothing, are refused. */
#include <string.h>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/load.h"

typedef struct tfi_pass {
    const tf_tokenizer *t;
    tfi_scratch *s;
    const tfi_range *range;
    uint32_t from; /* of s->marks: the next one to be replaced */
    int *lost;     /* out: code points that were removed before anything was written shift all ranges behind them */
    int inserted;  /* the last one written was more than there had been */
} pass;

/* A file may ask for any growth, part after part; offsets have 32 bits. */
enum { GROWTH_MAX = 64, GROWTH_FREE = 4096, CHARS_MAX = (1 << 30) - 1 };

tf_status tfi_too_long(void)
{
    return tfi_fail(TF_STATUS_INVALID, "the normal form of a text is more than %d times as long as the text", GROWTH_MAX);
}

static tf_status reserve_out(pass *p, size_t more)
{
    tfi_scratch *s = p->s;

    if (s->sorted_count + more > s->char_limit + TFI_DECOMPOSITION_MAX) return tfi_too_long();
    return tfi_reserve(s->memory, (void **)&s->sorted, &s->sorted_capacity, s->sorted_count + more, sizeof *s->sorted);
}

static inline uint8_t flags_of(const pass *p, uint32_t i)
{
    return tfi_unicode_flags(&p->t->unicode, p->s->marks[i].c);
}

/* Write `c` with the range of code point `from`. Room was made. */
static inline void put(pass *p, uint32_t c, uint32_t from)
{
    tfi_mark *m = &p->s->sorted[p->s->sorted_count++];

    *m = p->s->marks[from];
    m->c = c;
}

/* Write `c` as the reference's transform does: change 1 is one more, 0 takes the place of the next, -n that of n further ones. */
static void put_change(pass *p, uint32_t c, int32_t change)
{
    const uint32_t n = (uint32_t)p->s->mark_count;

    if (change > 0) {
        put(p, c, p->from - 1); /* there is one: the first never is one more */
        return;
    }
    put(p, c, p->from < n ? p->from : n - 1);
    p->from += 1 + (uint32_t)-change;
    if (p->from > n) p->from = n;
}

/* Precompiled. */

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

static tf_status map_char(pass *p, const tfi_charsmap *map, uint32_t i)
{
    uint8_t text[4];
    uint32_t size;
    size_t matched;
    const uint32_t c = p->s->marks[i].c, n = tfi_utf8_encode(c, text);
    const uint8_t *new = tfi_charsmap_find(map, text, n, 0, &matched, &size);
    tf_status status;

    if (new) return replace(p, 1, new, size);
    if ((status = reserve_out(p, 1)) < 0) return status;
    put(p, c, p->from++);
    p->inserted = 0;
    return TF_STATUS_OK;
}

/* The map, as tokenizers applies it: a grapheme of less than six bytes gives way as a whole to what its shortest member in the
 * map stands for; of all others each code point alone. */
static tf_status map_chars(pass *p, const tfi_part *part)
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
            const uint8_t *new = tfi_charsmap_find(part->map, text, bytes, 0, &matched, &size);
            if (new) {
                if ((status = replace(p, end - i, new, size)) < 0) return status;
                continue;
            }
        }
        for (; i < end; i++)
            if ((status = map_char(p, part->map, i)) < 0) return status;
    }
    return TF_STATUS_OK;
}

/* One code point to others, or none. */

static tf_status lower_chars(pass *p, const tfi_part *part)
{
    const tfi_scratch *s = p->s;
    uint32_t lower[TFI_LOWER_MAX];
    tf_status status;

    (void)part;
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

static tf_status nmt_chars(pass *p, const tfi_part *part)
{
    const tfi_scratch *s = p->s;
    const tf_status status = reserve_out(p, s->mark_count);

    (void)part;
    if (status < 0) return status;
    for (uint32_t i = 0; i < s->mark_count; i++) {
        const uint32_t c = nmt_char(s->marks[i].c);
        if (c || s->marks[i].c == 0) put(p, c, i);
    }
    return TF_STATUS_OK;
}

static tf_status strip_marks(pass *p, const tfi_part *part)
{
    const tfi_scratch *s = p->s;
    const tf_status status = reserve_out(p, s->mark_count);

    (void)part;
    if (status < 0) return status;
    for (uint32_t i = 0; i < s->mark_count; i++)
        if (!(tfi_unicode_flags(&p->t->more, s->marks[i].c) & TFI_UNICODE_MARK)) put(p, s->marks[i].c, i);
    return TF_STATUS_OK;
}

static tf_status strip_spaces(pass *p, const tfi_part *part)
{
    uint32_t begin = 0, end = (uint32_t)p->s->mark_count;
    tf_status status;

    while (part->left && p->range->is_first && begin < end && flags_of(p, begin) & TFI_UNICODE_SPACE) begin++;
    while (part->right && p->range->is_last && begin < end && flags_of(p, end - 1) & TFI_UNICODE_SPACE) end--;
    if ((status = reserve_out(p, end - begin)) < 0) return status;
    for (uint32_t i = begin; i < end; i++) put(p, p->s->marks[i].c, i);
    return TF_STATUS_OK;
}

/* The bytes of each code point, spelled as byte-level BPE does it. */
static tf_status spell_bytes(pass *p, const tfi_part *part)
{
    const tfi_scratch *s = p->s;
    const tf_status status = reserve_out(p, 4 * s->mark_count);
    uint8_t bytes[4];

    (void)part;
    if (status < 0) return status;
    for (uint32_t i = 0; i < s->mark_count; i++) {
        const uint32_t n = tfi_utf8_encode(s->marks[i].c, bytes);
        for (uint32_t k = 0; k < n; k++) put(p, tfi_byte_spelling(bytes[k]), i);
    }
    return TF_STATUS_OK;
}

/* Replace, Prepend. */

/* Two and more of the character `from`. */
static tf_status replace_runs(pass *p, const tfi_part *part)
{
    const uint32_t n = (uint32_t)p->s->mark_count, wanted = (uint8_t)part->from.data[0];
    uint32_t size, end;
    tf_status status;

    for (uint32_t i = 0; i < n; i = end) {
        for (end = i; end < n && p->s->marks[end].c == wanted;) end++;
        if ((status = reserve_out(p, part->to.size + 1)) < 0) return status;
        if (end >= i + 2) {
            for (uint32_t at = 0; at < part->to.size; at += size)
                put(p, tfi_utf8_decode((const uint8_t *)part->to.data + at, &size), end - 1);
        } else {
            end = i + 1;
            put(p, p->s->marks[i].c, i);
        }
    }
    return TF_STATUS_OK;
}

/* s->marks as text in s->piece. */
static tf_status write_text(tfi_scratch *s)
{
    const tf_status status = tfi_reserve(s->memory, (void **)&s->piece, &s->piece_capacity, 4 * s->mark_count + 4, 1);

    s->piece_size = 0;
    if (status < 0) return status;
    for (size_t i = 0; i < s->mark_count; i++) s->piece_size += tfi_utf8_encode(s->marks[i].c, s->piece + s->piece_size);
    return TF_STATUS_OK;
}

/* Copy the marks of the next `size` bytes of s->piece, or leave them out. Returns how many they are. */
static uint32_t skip(pass *p, size_t at, size_t end, int keep)
{
    const uint32_t first = p->from;
    uint32_t size;

    for (; at < end; at += size, p->from++) {
        const uint32_t c = tfi_utf8_decode(p->s->piece + at, &size);
        if (keep) put(p, c, p->from);
    }
    return p->from - first;
}

static tf_status replace_pattern(pass *p, const tfi_part *part)
{
    tfi_scratch *s = p->s;
    tfi_finding f = {0};
    size_t done = 0;
    uint32_t size;
    int found = 0;
    tf_status status;

    if (part->is_run) return replace_runs(p, part);
    if ((status = write_text(s)) < 0 || s->mark_count == 0) return status;
    while ((status = tfi_pattern_next(part->pattern, s, s->piece, s->piece_size, &f, &found)) == TF_STATUS_OK && found) {
        if ((status = reserve_out(p, f.begin - done + part->to.size)) < 0) return status;
        (void)skip(p, done, f.begin, 1);
        (void)skip(p, f.begin, f.end, 0);
        for (uint32_t at = 0; at < part->to.size; at += size)
            put(p, tfi_utf8_decode((const uint8_t *)part->to.data + at, &size), p->from - 1);
        done = f.end;
    }
    if (status < 0 || (status = reserve_out(p, s->piece_size - done)) < 0) return status;
    (void)skip(p, done, s->piece_size, 1);
    return TF_STATUS_OK;
}

static tf_status prepend(pass *p, const tfi_part *part)
{
    const tfi_scratch *s = p->s;
    const tf_status status = reserve_out(p, s->mark_count + part->to.size);
    uint32_t size;

    if (status < 0 || s->mark_count == 0) return status;
    for (uint32_t at = 0; p->range->is_first && at < part->to.size; at += size)
        put(p, tfi_utf8_decode((const uint8_t *)part->to.data + at, &size), 0);
    for (uint32_t i = 0; i < s->mark_count; i++) put(p, s->marks[i].c, i);
    return TF_STATUS_OK;
}

/* NFC, NFD, NFKC, NFKD, as the crate unicode-normalization-alignments has them. */

static int is_starter(const pass *p, uint32_t c)
{
    return !(tfi_unicode_flags(&p->t->unicode, c) & TFI_UNICODE_NONSTARTER);
}

/* Put s->forms[begin, count), no starters, in canonical order; equal classes stay as they are. */
static tf_status sort_marks(tfi_scratch *s, size_t begin)
{
    const size_t n = s->form_count - begin;
    size_t first[257] = {0};
    tf_status status;

    if (n < 2) return TF_STATUS_OK;
    if ((status = tfi_reserve(s->memory, (void **)&s->forms, &s->form_capacity, s->form_count + n, sizeof *s->forms)) < 0)
        return status;
    tfi_form *forms = s->forms + begin, *copy = forms + n;
    memcpy(copy, forms, n * sizeof *forms);
    for (size_t i = 0; i < n; i++) first[forms[i].combining + 1]++;
    for (int i = 1; i < 257; i++) first[i] += first[i - 1];
    for (size_t i = 0; i < n; i++) forms[first[copy[i].combining]++] = copy[i];
    return TF_STATUS_OK;
}

/* s->marks decomposed and ordered in s->forms. */
static tf_status decompose_all(pass *p, int is_compat)
{
    tfi_scratch *s = p->s;
    uint32_t parts[TFI_DECOMPOSITION_MAX];
    size_t marks = 0; /* where what is no starter began */
    tf_status status;

    s->form_count = 0;
    for (size_t i = 0; i < s->mark_count; i++) {
        const uint32_t c = s->marks[i].c;
        const int compat = is_compat && tfi_unicode_flags(&p->t->more, c) & TFI_UNICODE_COMPAT;
        int n = 1;
        if (compat || tfi_unicode_flags(&p->t->unicode, c) & TFI_UNICODE_DECOMPOSES)
            n = tfi_unicode_decompose(c, compat, parts);
        else parts[0] = c;
        status = tfi_reserve(s->memory, (void **)&s->forms, &s->form_capacity, s->form_count + (size_t)n, sizeof *s->forms);
        if (status < 0) return status;
        for (int k = 0; k < n; k++) {
            const int starter = is_starter(p, parts[k]);
            if (starter && (status = sort_marks(s, marks)) < 0) return status;
            s->forms[s->form_count++] = (tfi_form){
                .c = parts[k], .change = k > 0, .combining = starter ? 0 : (uint32_t)tfi_unicode_combining(parts[k])};
            if (starter) marks = s->form_count;
            else if ((status = tfi_reserve(s->memory, (void **)&s->forms, &s->form_capacity,
                                           s->form_count + TFI_DECOMPOSITION_MAX, sizeof *s->forms)) < 0)
                return status;
        }
    }
    return sort_marks(s, marks);
}

static uint32_t composed(const pass *p, uint32_t a, uint32_t b)
{
    return tfi_unicode_flags(&p->t->more, b) & TFI_UNICODE_COMPOSES ? tfi_unicode_compose(a, b) : 0;
}

/* Compose s->forms in place: a starter takes the marks behind it that nothing of their class or a higher one keeps from it. */
static void compose_all(pass *p)
{
    tfi_scratch *s = p->s;
    size_t out = 0, starter = SIZE_MAX;
    uint32_t last = 0; /* class of the last mark that stayed behind the starter; 0: none */

    for (size_t i = 0; i < s->form_count; i++) {
        const tfi_form f = s->forms[i];
        const int is_free = starter != SIZE_MAX && (last == 0 || last < f.combining);
        const uint32_t c = is_free ? composed(p, s->forms[starter].c, f.c) : 0;
        if (c) {
            s->forms[starter].c = c;
            s->forms[starter].change += f.change - 1;
            continue;
        }
        if (f.combining == 0) {
            starter = out;
            last = 0;
        } else if (starter != SIZE_MAX) {
            last = f.combining;
        }
        s->forms[out++] = f;
    }
    s->form_count = out;
}

static tf_status normal_form(pass *p, int is_compat, int composes)
{
    const uint8_t changed = TFI_UNICODE_NONSTARTER | TFI_UNICODE_DECOMPOSES;
    const uint8_t more = (uint8_t)((is_compat ? TFI_UNICODE_COMPAT : 0) | (composes ? TFI_UNICODE_COMPOSES : 0));
    tfi_scratch *s = p->s;
    uint8_t any = 0;
    tf_status status;

    for (uint32_t i = 0; i < s->mark_count; i++)
        if (s->marks[i].c > 127) any |= (flags_of(p, i) & changed) | (tfi_unicode_flags(&p->t->more, s->marks[i].c) & more);
    if ((status = reserve_out(p, s->mark_count)) < 0) return status;
    if (!any) {
        if (s->mark_count) memcpy(s->sorted, s->marks, s->mark_count * sizeof *s->marks);
        s->sorted_count = s->mark_count;
        return TF_STATUS_OK;
    }
    if ((status = decompose_all(p, is_compat)) < 0) return status;
    if (composes) compose_all(p);
    if ((status = reserve_out(p, s->form_count)) < 0) return status;
    for (size_t i = 0; i < s->form_count; i++) put_change(p, s->forms[i].c, s->forms[i].change);
    return TF_STATUS_OK;
}

static tf_status nfc(pass *p, const tfi_part *part)
{
    (void)part;
    return normal_form(p, 0, 1);
}

static tf_status nfd(pass *p, const tfi_part *part)
{
    (void)part;
    return normal_form(p, 0, 0);
}

static tf_status nfkc(pass *p, const tfi_part *part)
{
    (void)part;
    return normal_form(p, 1, 1);
}

static tf_status nfkd(pass *p, const tfi_part *part)
{
    (void)part;
    return normal_form(p, 1, 0);
}

/* Running. */

static tf_status run_part(pass *p, const tfi_part *part, tf_status (*run)(pass *p, const tfi_part *part))
{
    tfi_scratch *s = p->s;
    tf_status status;

    s->sorted_count = 0;
    p->from = 0;
    p->inserted = 0;
    status = run(p, part);
    tfi_mark *const marks = s->marks;
    const size_t capacity = s->mark_capacity;
    s->marks = s->sorted;
    s->mark_count = s->sorted_count;
    s->mark_capacity = s->sorted_capacity;
    s->sorted = marks;
    s->sorted_capacity = capacity;
    return status;
}

/* BertNormalizer. */

static tf_status bert_clean(pass *p, const tfi_part *part)
{
    const tfi_scratch *s = p->s;
    const tf_status status = reserve_out(p, s->mark_count);

    (void)part;
    if (status < 0) return status;
    for (uint32_t i = 0; i < s->mark_count; i++) {
        const uint8_t flags = flags_of(p, i);
        if (!(flags & TFI_UNICODE_REMOVED)) put(p, flags & TFI_UNICODE_SPACE ? ' ' : s->marks[i].c, i);
    }
    return TF_STATUS_OK;
}

static tf_status bert_cjk(pass *p, const tfi_part *part)
{
    const tfi_scratch *s = p->s;
    const tf_status status = reserve_out(p, 3 * s->mark_count);

    (void)part;
    if (status < 0) return status;
    for (uint32_t i = 0; i < s->mark_count; i++) {
        const int is_cjk = tfi_unicode_is_cjk(s->marks[i].c);
        if (is_cjk) put(p, ' ', i);
        put(p, s->marks[i].c, i);
        if (is_cjk) put(p, ' ', i);
    }
    return TF_STATUS_OK;
}

static tf_status bert_strip(pass *p, const tfi_part *part)
{
    const tfi_scratch *s = p->s;
    const tf_status status = reserve_out(p, s->mark_count);

    (void)part;
    if (status < 0) return status;
    for (uint32_t i = 0; i < s->mark_count; i++)
        if (!(flags_of(p, i) & TFI_UNICODE_STRIPPED)) put(p, s->marks[i].c, i);
    return TF_STATUS_OK;
}

/* The steps of BertNormalizer, each by itself; the last one's result is left to the caller's exchange. */
static tf_status bert(pass *p, const tfi_part *part)
{
    const struct {
        int is_on;
        tf_status (*run)(pass *p, const tfi_part *part);
    } steps[] = {{part->clean_text, bert_clean},
                 {part->split_cjk, bert_cjk},
                 {part->strip_accents, nfd},
                 {part->strip_accents, bert_strip},
                 {part->lowercase, lower_chars}};
    tfi_scratch *s = p->s;
    tf_status status = TF_STATUS_OK;

    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && status == TF_STATUS_OK; i++)
        if (steps[i].is_on) status = run_part(p, part, steps[i].run);
    if (status < 0) return status;
    s->sorted_count = 0;
    if ((status = reserve_out(p, s->mark_count)) < 0) return status;
    if (s->mark_count) memcpy(s->sorted, s->marks, s->mark_count * sizeof *s->marks);
    s->sorted_count = s->mark_count;
    return TF_STATUS_OK;
}

/* Settings. */

static tf_status read_bert(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    int strip = -1;
    tf_status status;

    (void)t;
    part->clean_text = part->split_cjk = part->lowercase = 1;
    if ((status = tfi_json_bool(*json, "clean_text", &part->clean_text)) < 0) return status;
    if ((status = tfi_json_bool(*json, "handle_chinese_chars", &part->split_cjk)) < 0) return status;
    if ((status = tfi_json_bool(*json, "lowercase", &part->lowercase)) < 0) return status;
    if ((status = tfi_json_bool(*json, "strip_accents", &strip)) < 0) return status;
    part->strip_accents = strip < 0 ? part->lowercase : strip;
    return TF_STATUS_OK;
}

static tf_status read_strip(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    tf_status status;

    (void)t;
    part->left = part->right = 1;
    if ((status = tfi_json_bool(*json, "strip_left", &part->left)) < 0) return status;
    return tfi_json_bool(*json, "strip_right", &part->right);
}

static tf_status read_replace(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    const json_t *pattern = json_object_get(json->object, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *text = json_string_value(json_object_get(pattern, "String"));
    tf_status status = tfi_part_string(t, json, "content", 1, &part->to);

    if (status < 0) return status;
    part->seams = TFI_SEAMS_UNSAFE;
    if (regex && strcmp(regex, " {2,}") == 0) { /* the one that many files have */
        part->from = (tfi_string){" ", 1};
        part->is_run = 1;
        part->seams = TFI_SEAMS_SAFE;
        return TF_STATUS_OK;
    }
    if (text && *text) {
        int ascii = 0;
        for (const char *c = text; *c; c++) ascii |= (uint8_t)*c < 128;
        if (!ascii) part->seams = TFI_SEAMS_SAFE;
        else if (!text[1]) part->seams = TFI_SEAMS_SPACE;
    }
    if ((status = tfi_part_pattern(t, json, part)) < 0) return status;
    return tfi_pattern_may_be_empty(part->pattern)
               ? tfi_fail(TF_STATUS_UNSUPPORTED, "%s: normalizer: a Replace whose pattern may match nothing is not supported",
                          json->file)
               : TF_STATUS_OK;
}

static tf_status read_spelling(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    (void)t;
    (void)json;
    part->seams = TFI_SEAMS_UNSAFE;
    return TF_STATUS_OK;
}

static tf_status read_prepend(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    const tf_status status = tfi_part_string(t, json, "prepend", 1, &part->to);

    if (status < 0 || part->to.size > 0) return status;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: normalizer: a Prepend of nothing is not supported", json->file);
}

static tf_status read_map(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    tfi_charsmap *map = t->unigram.map.units ? tfi_arena_alloc(&t->arena, sizeof *map) : &t->unigram.map;

    if (!map) return TF_STATUS_NOMEM;
    part->map = map;
    return tfi_charsmap_read(t, *json, map);
}

const tfi_part_kind tfi_normalizers[] = {{.name = "BertNormalizer", .read = read_bert, .normalize = bert},
                                         {.name = "ByteLevel", .read = read_spelling, .normalize = spell_bytes},
                                         {.name = "Lowercase", .normalize = lower_chars},
                                         {.name = "NFC", .normalize = nfc},
                                         {.name = "NFD", .normalize = nfd},
                                         {.name = "NFKC", .normalize = nfkc},
                                         {.name = "NFKD", .normalize = nfkd},
                                         {.name = "Nmt", .normalize = nmt_chars},
                                         {.name = "Precompiled", .read = read_map, .normalize = map_chars},
                                         {.name = "Prepend", .read = read_prepend, .normalize = prepend},
                                         {.name = "Replace", .read = read_replace, .normalize = replace_pattern},
                                         {.name = "Strip", .read = read_strip, .normalize = strip_spaces},
                                         {.name = "StripAccents", .normalize = strip_marks},
                                         {0}};

/* The code points of a text with their ranges. */
tf_status tfi_read_chars(tfi_scratch *s, const uint8_t *text, uint32_t begin, uint32_t end, uint32_t chars)
{
    uint32_t size;
    const tf_status status = tfi_reserve(s->memory, (void **)&s->marks, &s->mark_capacity, end - begin + 1, sizeof *s->marks);

    s->mark_count = 0;
    if (status < 0) return status;
    for (uint32_t at = begin; at < end; at += size)
        s->marks[s->mark_count++] =
            (tfi_mark){.c = tfi_utf8_decode(text + at, &size), .byte_begin = at, .byte_end = at + size, .index = chars++};
    return TF_STATUS_OK;
}

static tf_status reserve_chars(tfi_scratch *s, size_t count)
{
    const tf_status status = tfi_reserve(s->memory, (void **)&s->chars, &s->char_capacity, count + 1, sizeof *s->chars);

    s->normal_size = s->char_count = 0;
    return status < 0 ? status : tfi_reserve(s->memory, (void **)&s->normal, &s->normal_capacity, 4 * count + 4, 1);
}

static inline void write_char(const tf_tokenizer *t, tfi_scratch *s, const tfi_mark *m)
{
    s->chars[s->char_count++] = (tfi_char){.at = (uint32_t)s->normal_size,
                                           .byte_begin = m->byte_begin,
                                           .byte_end = m->byte_end,
                                           .index = m->index,
                                           .flags = tfi_unicode_flags(&t->unicode, m->c)};
    s->normal_size += tfi_utf8_encode(m->c, s->normal + s->normal_size);
}

/* s->marks as s->normal with s->chars. */
static tf_status write_chars(const tf_tokenizer *t, tfi_scratch *s)
{
    const tf_status status = reserve_chars(s, s->mark_count);

    for (size_t i = 0; status == TF_STATUS_OK && i < s->mark_count; i++) write_char(t, s, &s->marks[i]);
    return status;
}

/* The text as it is: no marks of it are held. */
static tf_status copy_chars(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, const tfi_range *range, uint32_t *chars)
{
    const tf_status status = reserve_chars(s, tfi_utf8_count(text + range->begin, range->end - range->begin));
    uint32_t size;

    for (uint32_t at = range->begin; status == TF_STATUS_OK && at < range->end; at += size) {
        const uint32_t c = tfi_utf8_decode(text + at, &size);
        write_char(t, s, &(tfi_mark){.c = c, .byte_begin = at, .byte_end = at + size, .index = (*chars)++});
    }
    return status;
}

static void set_limit(tfi_scratch *s, uint32_t size)
{
    const uint64_t limit = GROWTH_MAX * (uint64_t)size + GROWTH_FREE;

    s->char_limit = limit < CHARS_MAX ? (size_t)limit : CHARS_MAX;
}

tf_status tfi_lower_chars(const tf_tokenizer *t, tfi_scratch *s)
{
    pass p = {.t = t, .s = s};

    s->char_limit = CHARS_MAX;
    return run_part(&p, NULL, lower_chars);
}

tf_status tfi_run_normalizers(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, const tfi_range *range,
                              uint32_t *chars, int *lost)
{
    pass p = {.t = t, .s = s, .range = range, .lost = lost};
    tf_status status;

    *lost = 0;
    set_limit(s, range->end - range->begin);
    if (t->normalizers.count == 0) return copy_chars(t, s, text, range, chars);
    if ((status = tfi_read_chars(s, text, range->begin, range->end, *chars)) < 0) return status;
    *chars += (uint32_t)s->mark_count;
    for (int i = 0; i < t->normalizers.count; i++)
        if ((status = run_part(&p, &t->normalizers.data[i], t->normalizers.data[i].kind->normalize)) < 0) return status;
    return write_chars(t, s);
}
