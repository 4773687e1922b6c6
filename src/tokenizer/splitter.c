/* The pre-tokenizers of a tokenizer.json: each takes the spans of the normal form, s->spans, and writes smaller ones.
 *
 * Most only divide: they find delimiters, and what becomes of these follows the reference's NormalizedString::split. ByteLevel
 * and Metaspace change the text as well: they write s->chars anew, span by span. Spans of added tokens stay as they are. */
#include <string.h>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/tokenizer.h"

/* Spans while they are written. A piece waits until it is known that nothing joins it. */
typedef struct division {
    tfi_scratch *s;
    tfi_behavior behavior;
    int is_inverted;
    int has_piece, last_match;
    tfi_span piece;
} division;

static tf_status put_span(tfi_scratch *s, uint32_t begin, uint32_t end, int32_t added)
{
    const tf_status status =
        tfi_reserve(s->memory, (void **)&s->divided, &s->divided_capacity, s->divided_count + 1, sizeof *s->divided);

    if (status < 0 || begin >= end) return status;
    s->divided[s->divided_count++] = (tfi_span){.begin = begin, .end = end, .added = added};
    return TF_STATUS_OK;
}

static tf_status flush(division *d)
{
    const int has_piece = d->has_piece;

    d->has_piece = 0;
    return has_piece ? put_span(d->s, d->piece.begin, d->piece.end, TFI_TRIE_NONE) : TF_STATUS_OK;
}

/* The next part of a span: a match of the delimiter, or what lies between two. */
static tf_status divide(division *d, uint32_t begin, uint32_t end, int is_match)
{
    const int last = d->last_match;
    int joins;
    tf_status status;

    is_match ^= d->is_inverted;
    d->last_match = is_match;
    if (d->behavior == TFI_REMOVED && is_match) return flush(d);
    switch (d->behavior) {
    case TFI_MERGED_WITH_PREVIOUS:
        joins = is_match && !last;
        break;
    case TFI_MERGED_WITH_NEXT:
        joins = !is_match && last;
        break;
    case TFI_CONTIGUOUS:
        joins = is_match == last;
        break;
    default:
        joins = 0;
        break;
    }
    if (joins && d->has_piece) return d->piece.end = end, TF_STATUS_OK;
    if ((status = flush(d)) < 0) return status;
    d->has_piece = 1;
    d->piece = (tfi_span){.begin = begin, .end = end};
    return TF_STATUS_OK;
}

/* Run over the spans that are text: `one` writes what becomes of each. */
static tf_status each_span(tfi_reading *x, const tfi_part *part,
                           tf_status (*one)(tfi_reading *x, const tfi_part *part, const tfi_span *span))
{
    tfi_scratch *s = x->s;
    tf_status status = TF_STATUS_OK;

    s->divided_count = 0;
    for (size_t i = 0; i < s->span_count && status == TF_STATUS_OK; i++) {
        const tfi_span span = s->spans[i];
        status = span.added == TFI_TRIE_NONE ? one(x, part, &span) : put_span(s, span.begin, span.end, span.added);
    }
    tfi_span *const spans = s->spans;
    const size_t capacity = s->span_capacity;
    s->spans = s->divided;
    s->span_count = s->divided_count;
    s->span_capacity = s->divided_capacity;
    s->divided = spans;
    s->divided_capacity = capacity;
    return status;
}

static inline uint32_t char_at(const tfi_scratch *s, uint32_t i)
{
    uint32_t size;

    return tfi_utf8_decode(s->normal + s->chars[i].at, &size);
}

/* Delimiters of one code point. */

static tf_status divide_chars(tfi_reading *x, const tfi_part *part, const tfi_span *span, tfi_behavior behavior,
                              int (*is_delimiter)(const tfi_reading *x, const tfi_part *part, uint32_t i))
{
    division d = {.s = x->s, .behavior = behavior};
    uint32_t done = span->begin;
    tf_status status = TF_STATUS_OK;

    for (uint32_t i = span->begin; i < span->end && status == TF_STATUS_OK; i++) {
        if (!is_delimiter(x, part, i)) continue;
        if (done < i) status = divide(&d, done, i, 0);
        if (status == TF_STATUS_OK) status = divide(&d, i, i + 1, 1);
        done = i + 1;
    }
    if (done < span->end && status == TF_STATUS_OK) status = divide(&d, done, span->end, 0);
    return status < 0 ? status : flush(&d);
}

static int is_space(const tfi_reading *x, const tfi_part *part, uint32_t i)
{
    (void)part;
    return x->s->chars[i].flags & TFI_UNICODE_SPACE;
}

static int is_punctuation(const tfi_reading *x, const tfi_part *part, uint32_t i)
{
    (void)part;
    return x->s->chars[i].flags & TFI_UNICODE_PUNCTUATION;
}

static int is_numeric(const tfi_reading *x, const tfi_part *part, uint32_t i)
{
    const uint32_t c = char_at(x->s, i);

    (void)part;
    return x->t->more.page[c >> 8][c & 255] & TFI_UNICODE_NUMERIC;
}

static int is_mark(const tfi_reading *x, const tfi_part *part, uint32_t i)
{
    return char_at(x->s, i) == part->mark;
}

static tf_status spaces_one(tfi_reading *x, const tfi_part *part, const tfi_span *span)
{
    return divide_chars(x, part, span, TFI_REMOVED, is_space);
}

static tf_status punctuation_one(tfi_reading *x, const tfi_part *part, const tfi_span *span)
{
    return divide_chars(x, part, span, part->behavior, is_punctuation);
}

static tf_status digits_one(tfi_reading *x, const tfi_part *part, const tfi_span *span)
{
    return divide_chars(x, part, span, part->each ? TFI_ISOLATED : TFI_CONTIGUOUS, is_numeric);
}

static tf_status delimiter_one(tfi_reading *x, const tfi_part *part, const tfi_span *span)
{
    return divide_chars(x, part, span, TFI_REMOVED, is_mark);
}

static tf_status split_spaces(tfi_reading *x, const tfi_part *part)
{
    return each_span(x, part, spaces_one);
}

static tf_status split_punctuation(tfi_reading *x, const tfi_part *part)
{
    return each_span(x, part, punctuation_one);
}

static tf_status split_digits(tfi_reading *x, const tfi_part *part)
{
    return each_span(x, part, digits_one);
}

static tf_status split_delimiter(tfi_reading *x, const tfi_part *part)
{
    return each_span(x, part, delimiter_one);
}

/* BertPreTokenizer: spaces go, then punctuation stands alone. */
static tf_status split_bert(tfi_reading *x, const tfi_part *part)
{
    const tfi_part isolated = {.behavior = TFI_ISOLATED};
    const tf_status status = split_spaces(x, part);

    return status < 0 ? status : split_punctuation(x, &isolated);
}

/* Whitespace:  \w+|[^\w\s]+  */

static tf_status whitespace_one(tfi_reading *x, const tfi_part *part, const tfi_span *span)
{
    const uint8_t kinds = TFI_UNICODE_SPACE | TFI_UNICODE_WORD;
    tf_status status = TF_STATUS_OK;

    (void)part;
    for (uint32_t i = span->begin, end; i < span->end && status == TF_STATUS_OK; i = end) {
        const uint8_t kind = x->s->chars[i].flags & kinds;
        for (end = i + 1; end < span->end && (x->s->chars[end].flags & kinds) == kind;) end++;
        if (!(kind & TFI_UNICODE_SPACE)) status = put_span(x->s, i, end, TFI_TRIE_NONE);
    }
    return status;
}

static tf_status split_whitespace(tfi_reading *x, const tfi_part *part)
{
    return each_span(x, part, whitespace_one);
}

/* Split. */

static tf_status pattern_one(tfi_reading *x, const tfi_part *part, const tfi_span *span)
{
    tfi_scratch *s = x->s;
    division d = {.s = s, .behavior = part->behavior, .is_inverted = part->is_inverted};
    const uint32_t first = s->chars[span->begin].at;
    const uint32_t end = span->end < s->char_count ? s->chars[span->end].at : (uint32_t)s->normal_size;
    uint32_t done = span->begin;
    tfi_finding f = {0};
    int found = 0;
    tf_status status;

    while ((status = tfi_pattern_next(part->pattern, s, s->normal + first, end - first, &f, &found)) == TF_STATUS_OK && found) {
        uint32_t from = done, to;
        while (from < span->end && s->chars[from].at - first < f.begin) from++;
        for (to = from; to < span->end && s->chars[to].at - first < f.end;) to++;
        if (done < from && (status = divide(&d, done, from, 0)) < 0) return status;
        if ((status = divide(&d, from, to, 1)) < 0) return status;
        done = to;
    }
    if (status < 0 || (done < span->end && (status = divide(&d, done, span->end, 0)) < 0)) return status;
    return flush(&d);
}

static tf_status split_pattern(tfi_reading *x, const tfi_part *part)
{
    return each_span(x, part, pattern_one);
}

/* UnicodeScripts: a new span where the script changes. What is of any script belongs to what is before it; at the begin of a
 * span it is lost. */

static tf_status scripts_one(tfi_reading *x, const tfi_part *part, const tfi_span *span)
{
    uint32_t begin = span->end;
    uint8_t last = 0;
    tf_status status = TF_STATUS_OK;

    (void)part;
    for (uint32_t i = span->begin; i < span->end && status == TF_STATUS_OK; i++) {
        const uint8_t script = tfi_unicode_script(char_at(x->s, i));
        if (script == 0 || script == last) continue;
        status = put_span(x->s, begin, i, TFI_TRIE_NONE);
        begin = i;
        last = script;
    }
    return status < 0 ? status : put_span(x->s, begin, span->end, TFI_TRIE_NONE);
}

static tf_status split_scripts(tfi_reading *x, const tfi_part *part)
{
    return each_span(x, part, scripts_one);
}

static tf_status length_one(tfi_reading *x, const tfi_part *part, const tfi_span *span)
{
    tf_status status = TF_STATUS_OK;

    for (int64_t at = span->begin; part->stop > 0 && at < span->end && status == TF_STATUS_OK; at += part->stop) {
        const int64_t end = at + part->stop < span->end ? at + part->stop : span->end;
        status = put_span(x->s, (uint32_t)at, (uint32_t)end, TFI_TRIE_NONE);
    }
    return status;
}

static tf_status split_length(tfi_reading *x, const tfi_part *part)
{
    return each_span(x, part, length_one);
}

/* Text that changes. */

/* Append `c` to the new text, with the range of code point `from` of the old. */
static tf_status put_char(tfi_reading *x, uint32_t c, uint32_t from)
{
    tfi_scratch *s = x->s;
    tf_status status =
        tfi_reserve(s->memory, (void **)&s->new_chars, &s->new_char_capacity, s->new_char_count + 1, sizeof *s->new_chars);

    if (status < 0) return status;
    if (s->new_char_count > s->char_limit) return tfi_too_long();
    if ((status = tfi_reserve(s->memory, (void **)&s->new_normal, &s->new_normal_capacity, s->new_normal_size + 4, 1)) < 0)
        return status;
    tfi_char *new = &s->new_chars[s->new_char_count++];
    *new = s->chars[from];
    new->at = (uint32_t)s->new_normal_size;
    new->flags = tfi_unicode_flags(&x->t->unicode, c);
    s->new_normal_size += tfi_utf8_encode(c, s->new_normal + s->new_normal_size);
    return TF_STATUS_OK;
}

/* Write all spans anew: `change` writes what becomes of code point i of one. */
static tf_status rewrite(tfi_reading *x, const tfi_part *part,
                         tf_status (*change)(tfi_reading *x, const tfi_part *part, const tfi_span *span, uint32_t i))
{
    tfi_scratch *s = x->s;
    tf_status status = TF_STATUS_OK;

    s->new_char_count = s->new_normal_size = 0;
    for (size_t k = 0; k < s->span_count; k++) {
        tfi_span *span = &s->spans[k];
        const uint32_t begin = (uint32_t)s->new_char_count;
        for (uint32_t i = span->begin; i < span->end && status == TF_STATUS_OK; i++)
            status = span->added == TFI_TRIE_NONE ? change(x, part, span, i) : put_char(x, char_at(s, i), i);
        if (status < 0) return status;
        *span = (tfi_span){.begin = begin, .end = (uint32_t)s->new_char_count, .added = span->added};
    }
    tfi_char *const chars = s->chars;
    uint8_t *const normal = s->normal;
    const size_t char_capacity = s->char_capacity, normal_capacity = s->normal_capacity;
    s->chars = s->new_chars;
    s->char_count = s->new_char_count;
    s->char_capacity = s->new_char_capacity;
    s->normal = s->new_normal;
    s->normal_size = s->new_normal_size;
    s->normal_capacity = s->new_normal_capacity;
    s->new_chars = chars;
    s->new_char_capacity = char_capacity;
    s->new_normal = normal;
    s->new_normal_capacity = normal_capacity;
    return TF_STATUS_OK;
}

/* ByteLevel. */

static tf_status prefix_char(tfi_reading *x, const tfi_part *part, const tfi_span *span, uint32_t i)
{
    const uint32_t c = char_at(x->s, i);
    const tf_status status = part->prefix_space && i == span->begin && c != ' ' ? put_char(x, ' ', i) : TF_STATUS_OK;

    return status < 0 ? status : put_char(x, c, i);
}

static tf_status spell_char(tfi_reading *x, const tfi_part *part, const tfi_span *span, uint32_t i)
{
    uint8_t bytes[4];
    const uint32_t n = tfi_utf8_encode(char_at(x->s, i), bytes);
    tf_status status = TF_STATUS_OK;

    (void)part;
    (void)span;
    for (uint32_t k = 0; k < n && status == TF_STATUS_OK; k++) status = put_char(x, tfi_byte_spelling(bytes[k]), i);
    return status;
}

static tf_status split_bytes(tfi_reading *x, const tfi_part *part)
{
    tf_status status;

    if (part->prefix_space && (status = rewrite(x, part, prefix_char)) < 0) return status;
    if (part->use_pattern && (status = split_pattern(x, part)) < 0) return status;
    return rewrite(x, part, spell_char);
}

/* Metaspace. */

static tf_status mark_char(tfi_reading *x, const tfi_part *part, const tfi_span *span, uint32_t i)
{
    const uint32_t old = char_at(x->s, i), c = old == ' ' ? part->mark : old;
    const int wanted = part->prepend == TFI_PREPEND_ALWAYS ||
                       (part->prepend == TFI_PREPEND_FIRST && x->s->chars[span->begin].byte_begin == 0);
    tf_status status = TF_STATUS_OK;

    if (wanted && i == span->begin && c != part->mark) status = put_char(x, part->mark, i);
    return status < 0 ? status : put_char(x, c, i);
}

static tf_status marks_one(tfi_reading *x, const tfi_part *part, const tfi_span *span)
{
    return divide_chars(x, part, span, TFI_MERGED_WITH_NEXT, is_mark);
}

static tf_status split_metaspace(tfi_reading *x, const tfi_part *part)
{
    const tf_status status = rewrite(x, part, mark_char);

    return status < 0 || !part->splits ? status : each_span(x, part, marks_one);
}

/* Settings. */

static tf_status read_bytes(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    static const char pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    tf_status status;

    part->prefix_space = part->use_pattern = 1;
    part->behavior = TFI_ISOLATED;
    if ((status = tfi_json_bool(*json, "add_prefix_space", &part->prefix_space)) < 0) return status;
    if ((status = tfi_json_bool(*json, "use_regex", &part->use_pattern)) < 0 || !part->use_pattern) return status;
    return tfi_pattern_open(t->memory, &t->more, pattern, sizeof pattern - 1, 1, json->file, &part->pattern);
}

static tf_status read_delimiter(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    (void)t;
    return tfi_part_char(json, "delimiter", part);
}

static tf_status read_digits(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    (void)t;
    return tfi_json_bool(*json, "individual_digits", &part->each);
}

static tf_status read_length(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    (void)t;
    part->stop = 5;
    return tfi_json_int(*json, "length", 0, UINT32_MAX, &part->stop);
}

static tf_status read_punctuation(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    (void)t;
    part->behavior = TFI_ISOLATED;
    return tfi_part_behavior(json, part);
}

static tf_status read_split(tf_tokenizer *t, const tfi_json *json, tfi_part *part)
{
    tf_status status;

    if ((status = tfi_part_behavior(json, part)) < 0 || (status = tfi_json_bool(*json, "invert", &part->is_inverted)) < 0)
        return status;
    return tfi_part_pattern(t, json, part);
}

const tfi_part_kind tfi_splitters[] = {{.name = "BertPreTokenizer", .split = split_bert},
                                       {.name = "ByteLevel", .read = read_bytes, .split = split_bytes},
                                       {.name = "CharDelimiterSplit", .read = read_delimiter, .split = split_delimiter},
                                       {.name = "Digits", .read = read_digits, .split = split_digits},
                                       {.name = "FixedLength", .read = read_length, .split = split_length},
                                       {.name = "Metaspace", .read = tfi_part_metaspace, .split = split_metaspace},
                                       {.name = "Punctuation", .read = read_punctuation, .split = split_punctuation},
                                       {.name = "Split", .read = read_split, .split = split_pattern},
                                       {.name = "UnicodeScripts", .split = split_scripts},
                                       {.name = "Whitespace", .split = split_whitespace},
                                       {.name = "WhitespaceSplit", .split = split_spaces},
                                       {0}};
