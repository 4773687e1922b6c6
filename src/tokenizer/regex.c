/* Oniguruma's regular expressions, in its own syntax as tokenizers has it, written anew for PCRE2.
 *
 * What both read alike goes through: groups, alternatives, repetition, looking around, ^ $ \A \z \Z. What they know of Unicode differs,
 * so PCRE2 never sees any: all sets of code points that an expression asks for (\p{L}, \w, [...], a letter) are worked out here from
 * unicode_tables.h, code points that no set tells apart become one class, and both the expression and the text are written in classes,
 * one byte each. Where the two differ otherwise the meaning is spelled out: (?i) inside a group holds for all alternatives behind it,
 * {n,m}+ repeats, (?m) lets the dot match a newline, \h is a hexadecimal digit. Back references, \X \R \K \G, absent operators,
 * conditions and letters outside ASCII in any case are refused by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "tokenizer/pattern.h"
#include "tokenizer/sets.h"
#include "tokenizer/tokenizer.h"

enum { GROUPS_MAX = 64, DEPTH_MAX = 16, PATTERN_MAX = 4096, OUT_MAX = 1 << 20, NEWLINE = '\n', MARK = 1 };
enum { IGNORE_CASE = 1, DOT_ALL = 2, EXTENDED = 4 };
enum { NO_ATOM = SIZE_MAX };

typedef struct translation {
    tfi_memory *memory;
    const tfi_unicode *more;
    const char *where;
    const uint8_t *text;
    size_t size, at;
    char *out;
    size_t out_size, out_capacity;
    uint8_t *categories;        /* [0x110000] once some class asks */
    tfi_set sets[TFI_SETS_MAX]; /* those that the expression asks for; in `out` a set is MARK and two bytes of its number */
    uint32_t set_count;
    int options;
    int depth, class_depth;
    struct {
        int options; /* to come back to */
        int extra;   /* groups that end with this one */
    } groups[GROUPS_MAX];
    size_t atom;     /* where in `out` what may be repeated begins */
    uint32_t before; /* the ASCII letter just written in any case, or 0 */
} translation;

/* Errors and output. */

static tf_status refuse(const translation *x, const char *what)
{
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: the pattern \"%.*s\": %s at byte %zu is not supported", x->where,
                    (int)(x->size < 64 ? x->size : 64), (const char *)x->text, what, x->at);
}

static tf_status emit(translation *x, const char *text, size_t size)
{
    if (x->out_size + size > OUT_MAX) return refuse(x, "a class or pattern of this size");
    const tf_status status = tfi_reserve(x->memory, (void **)&x->out, &x->out_capacity, x->out_size + size, 1);

    if (status < 0) return status;
    memcpy(x->out + x->out_size, text, size);
    x->out_size += size;
    return TF_STATUS_OK;
}

static tf_status emit_string(translation *x, const char *text)
{
    return emit(x, text, strlen(text));
}

/* Write the number of a set, which goes into the list if it is new; *s is empty then. */
static tf_status emit_set(translation *x, tfi_set *s)
{
    uint32_t i = 0;

    tfi_set_normalize(s);
    while (i < x->set_count &&
           (x->sets[i].count != s->count || (s->count && memcmp(x->sets[i].data, s->data, s->count * sizeof *s->data) != 0)))
        i++;
    if (i == TFI_SETS_MAX) return refuse(x, "so many classes");
    if (i == x->set_count) {
        x->sets[x->set_count++] = *s;
        *s = (tfi_set){0};
    }
    const char text[] = {MARK, (char)(i >> 4 | 0x40), (char)((i & 15) | 0x40)};
    return emit(x, text, sizeof text);
}

static tf_status emit_char(translation *x, uint32_t c)
{
    tfi_set s = {0};
    tf_status status = tfi_set_add(x->memory, &s, c, c);

    if (status == TF_STATUS_OK) status = emit_set(x, &s);
    tfi_set_close(x->memory, &s);
    return status;
}

/* Classes with a name. */

/* Code points of the categories whose bits are set. */
static tf_status add_categories(translation *x, tfi_set *s, uint32_t wanted)
{
    tf_status status = TF_STATUS_OK;

    if (!x->categories) {
        if (!(x->categories = tfi_alloc(x->memory, TFI_POINT_LAST + 1))) return TF_STATUS_NOMEM;
        tfi_unicode_categories(x->categories);
    }
    for (uint32_t c = 0, end; c <= TFI_POINT_LAST && status == TF_STATUS_OK; c = end) {
        const uint8_t category = x->categories[c];
        for (end = c + 1; end <= TFI_POINT_LAST && x->categories[end] == category;) end++;
        if (wanted >> category & 1) status = tfi_set_add(x->memory, s, c, end - 1);
    }
    return status;
}

static tf_status add_ranges(translation *x, tfi_set *s, const tfi_points *ranges, size_t count)
{
    tf_status status = TF_STATUS_OK;

    for (size_t i = 0; i < count && status == TF_STATUS_OK; i++)
        status = tfi_set_add(x->memory, s, ranges[i].first, ranges[i].last);
    return status;
}

/* \w. Outside of brackets Oniguruma asks a table of Latin-1 first, to which small digits and fractions are words, too. */
static tf_status add_words(translation *x, tfi_set *s)
{
    static const tfi_points latin[] = {{0xb2, 0xb3}, {0xb9, 0xb9}, {0xbc, 0xbe}};
    tf_status status = x->class_depth > 0 ? TF_STATUS_OK : add_ranges(x, s, latin, sizeof latin / sizeof latin[0]);

    for (uint32_t c = 0; c <= TFI_POINT_LAST && status == TF_STATUS_OK; c++)
        if (x->more->page[c >> 8][c & 255] & TFI_UNICODE_REGEX_WORD) status = tfi_set_add(x->memory, s, c, c);
    return status;
}

/* The class of \d, \w, \s or \h. */
static tf_status add_class(translation *x, tfi_set *s, char letter)
{
    static const tfi_points spaces[] = {{9, 13},          {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},
                                        {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
                                        {0x205f, 0x205f}, {0x3000, 0x3000}};
    static const tfi_points hex[] = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}};

    if (letter == 'd') return add_categories(x, s, 1u << 9);
    if (letter == 'w') return add_words(x, s);
    if (letter == 's') return add_ranges(x, s, spaces, sizeof spaces / sizeof spaces[0]);
    return add_ranges(x, s, hex, sizeof hex / sizeof hex[0]);
}

/* The categories of a name, one bit each; 0 if it is none. */
static uint32_t categories_of(const char *name)
{
    static const char *const names =
        "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co";
    uint32_t out = 0;

    for (int i = 0; i < 30; i++)
        if (name[0] == names[3 * i] && (!name[1] || (name[1] == names[3 * i + 1] && !name[2]))) out |= 1u << i;
    return out;
}

/* \p{name}, \p{^name} or \P{name}; `at` is behind the letter. */
static tf_status add_property(translation *x, tfi_set *s, int inverted)
{
    static const struct {
        const char *name, *means;
    } others[] = {{"Letter", "L"}, {"Mark", "M"}, {"Number", "N"}, {"Punctuation", "P"}, {"Symbol", "S"}, {"Separator", "Z"}};
    char name[32];
    size_t n = 0;
    uint32_t first, last;
    tf_status status = TF_STATUS_OK;

    if (x->at >= x->size || x->text[x->at] != '{') return refuse(x, "a property without braces");
    x->at++;
    if (x->at < x->size && x->text[x->at] == '^') inverted = !inverted, x->at++;
    while (x->at < x->size && x->text[x->at] != '}' && n < sizeof name - 1) name[n++] = (char)x->text[x->at++];
    name[n] = 0;
    if (x->at >= x->size || x->text[x->at++] != '}') return refuse(x, "a property of this name");
    const char *means = name;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(others[i].name, name) == 0) means = others[i].means;
    const uint32_t wanted = categories_of(means);
    if (x->options & IGNORE_CASE && (inverted || !wanted || means[1] || *means == 'M'))
        return refuse(x, "a property in any case");
    if (wanted) {
        status = add_categories(x, s, wanted);
        if (status == TF_STATUS_OK && x->options & IGNORE_CASE && x->class_depth > 0 && *means == 'L')
            status = tfi_set_add(x->memory, s, 0x345, 0x345); /* a mark whose other cases are letters */
    } else {
        if (!tfi_unicode_script_range(name, 0, &first, &last)) return refuse(x, "a property of this name");
        for (size_t i = 0; status == TF_STATUS_OK && tfi_unicode_script_range(name, i, &first, &last); i++)
            status = tfi_set_add(x->memory, s, first, last);
    }
    return status == TF_STATUS_OK && inverted ? tfi_set_invert(x->memory, s) : status;
}

/* Escapes. */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Up to `most` hexadecimal digits. */
static uint32_t read_hex(translation *x, int most, int *count)
{
    uint32_t value = 0;

    for (*count = 0; *count < most && x->at < x->size && hex_digit(x->text[x->at]) >= 0; ++*count)
        value = value << 4 | (uint32_t)hex_digit(x->text[x->at++]);
    return value;
}

/* The code point that is written behind a backslash, whose letter was read. */
static tf_status escaped_char(translation *x, uint8_t letter, uint32_t *c)
{
    static const char names[] = "tnrfvae", codes[] = "\t\n\r\f\v\a\x1b";
    const char *name = strchr(names, letter);
    int count;

    if (letter && name) return *c = (uint8_t)codes[name - names], TF_STATUS_OK;
    if (letter == 'x' || letter == 'u') {
        const int braces = letter == 'x' && x->at < x->size && x->text[x->at] == '{';
        x->at += (size_t)braces;
        *c = read_hex(x, letter == 'u' ? 4 : braces ? 8 : 2, &count);
        const int is_ended = !braces || (x->at < x->size && x->text[x->at++] == '}');
        const int is_good = letter == 'u' ? count == 4 : count > 0 && (braces || *c < 0x80);
        if (!is_ended || !is_good || *c > TFI_POINT_LAST || (*c >= 0xd800 && *c < 0xe000))
            return refuse(x, "a code of this kind");
        return TF_STATUS_OK;
    }
    if ((letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z'))
        return refuse(x, "an escape of this letter");
    if (letter < 128) return *c = letter, TF_STATUS_OK;
    return refuse(x, "an escape of this letter");
}

static uint32_t next_char(translation *x)
{
    uint32_t size;
    const uint32_t c = tfi_utf8_decode(x->text + x->at, &size);

    x->at += size;
    return c;
}

static int peek(const translation *x, const char *text)
{
    const size_t n = strlen(text);

    return x->size - x->at >= n && memcmp(x->text + x->at, text, n) == 0;
}

/* [...] */

static tf_status read_set(translation *x, tfi_set *s);

/* One member of a class: a set in *part, or a code point, which may begin a range. */
static tf_status read_member(translation *x, tfi_set *part, uint32_t *c, int *is_set)
{
    const uint32_t first = next_char(x);

    *is_set = 0;
    *c = first;
    if (first == '[') {
        *is_set = 1;
        if (x->at < x->size && x->text[x->at] == ':') return refuse(x, "a POSIX class");
        return read_set(x, part);
    }
    if (first != '\\') return TF_STATUS_OK;
    if (x->at >= x->size) return refuse(x, "a backslash");
    const uint8_t letter = x->text[x->at];
    if (letter >= 128) return *c = next_char(x), TF_STATUS_OK;
    x->at++;
    if (letter && strchr("dDwWsShH", letter)) {
        *is_set = 1;
        const tf_status status = add_class(x, part, (char)(letter | 0x20));
        return status == TF_STATUS_OK && !(letter & 0x20) ? tfi_set_invert(x->memory, part) : status;
    }
    if (letter == 'p' || letter == 'P') return *is_set = 1, add_property(x, part, letter == 'P');
    if (letter == 'b') return *c = 8, TF_STATUS_OK;
    return escaped_char(x, letter, c);
}

/* Letters outside ASCII have other cases that are not worked out. */
static int has_cases(uint32_t first, uint32_t last)
{
    for (uint32_t c = first < 128 ? 128 : first; c <= last; c++)
        if (c < 0x2000 || (c > 0x20ff && c < 0x2e80) || (c > 0xa63f && c < 0xac00) || (c > 0xd7ff && c < 0x20000)) return 1;
    return 0;
}

/* Add members up to "&&", "]" or the end. */
static tf_status read_members(translation *x, tfi_set *s)
{
    uint32_t c = 0, last = 0;
    int is_set;
    tf_status status = TF_STATUS_OK;

    while (x->at < x->size && x->text[x->at] != ']' && !peek(x, "&&") && status == TF_STATUS_OK) {
        tfi_set part = {0};
        status = read_member(x, &part, &c, &is_set);
        last = c;
        if (status == TF_STATUS_OK && peek(x, "-") && !peek(x, "-]")) {
            tfi_set end = {0};
            x->at++;
            if (is_set || x->at >= x->size) status = refuse(x, "a range of this kind");
            else status = read_member(x, &end, &last, &is_set);
            if (status == TF_STATUS_OK && (is_set || last < c)) status = refuse(x, "a range of this kind");
            tfi_set_close(x->memory, &end);
        }
        if (status == TF_STATUS_OK && is_set) status = tfi_set_join(x->memory, s, &part);
        else if (status == TF_STATUS_OK) status = tfi_set_add(x->memory, s, c, last);
        if (status == TF_STATUS_OK && !is_set && x->options & IGNORE_CASE && has_cases(c, last))
            status = refuse(x, "a letter outside ASCII in any case");
        tfi_set_close(x->memory, &part);
    }
    return status;
}

/* Behind the "[". */
static tf_status read_set(translation *x, tfi_set *s)
{
    tfi_set more = {0};
    int inverted = 0;
    tf_status status;

    if (++x->class_depth > DEPTH_MAX) return refuse(x, "so many classes in one another");
    if (peek(x, "^")) inverted = 1, x->at++;
    if (peek(x, "]")) return refuse(x, "a bracket as the first member of a class");
    status = read_members(x, s);
    while (status == TF_STATUS_OK && peek(x, "&&")) {
        x->at += 2;
        status = read_members(x, &more);
        if (status == TF_STATUS_OK) status = tfi_set_intersect(x->memory, s, &more);
        tfi_set_close(x->memory, &more);
    }
    tfi_set_close(x->memory, &more);
    if (status < 0) return status;
    if (!peek(x, "]")) return refuse(x, "a class without an end");
    x->at++;
    x->class_depth--;
    if (x->options & IGNORE_CASE && (status = tfi_set_fold(x->memory, s)) < 0) return status;
    return inverted ? tfi_set_invert(x->memory, s) : TF_STATUS_OK;
}

/* Atoms. */

static tf_status atom_set(translation *x, tfi_set *s, tf_status status)
{
    x->atom = x->out_size;
    x->before = 0;
    if (status == TF_STATUS_OK) status = emit_set(x, s);
    tfi_set_close(x->memory, s);
    return status;
}

/* Two letters that some single one is the same as in another case. */
static int is_fold_pair(uint32_t a, uint32_t b)
{
    return (a == 's' && (b == 's' || b == 't')) || (a == 'f' && (b == 'f' || b == 'i' || b == 'l'));
}

static tf_status literal(translation *x, uint32_t c)
{
    const uint32_t lower = c | 0x20, before = x->before;
    tfi_set s = {0};
    tf_status status;

    x->atom = x->out_size;
    x->before = 0;
    if (!(x->options & IGNORE_CASE) || (c < 128 && (lower < 'a' || lower > 'z'))) return emit_char(x, c);
    if (c > 127) return has_cases(c, c) ? refuse(x, "a letter outside ASCII in any case") : emit_char(x, c);
    if (before && is_fold_pair(before, lower)) return refuse(x, "two letters that are one in another case");
    if ((status = tfi_set_add(x->memory, &s, c, c)) == TF_STATUS_OK) status = tfi_set_fold(x->memory, &s);
    status = atom_set(x, &s, status);
    x->before = lower;
    return status;
}

/* \b and \B: \w on one side alone, or not. */
static tf_status boundary(translation *x, int inverted)
{
    static const char *const parts[2][5] = {{"(?:(?<=", ")(?!", ")|(?<!", ")(?=", "))"},
                                            {"(?:(?<=", ")(?=", ")|(?<!", ")(?!", "))"}};
    tf_status status = TF_STATUS_OK;

    for (int i = 0; i < 5 && status == TF_STATUS_OK; i++) {
        tfi_set s = {0};
        status = emit_string(x, parts[inverted][i]);
        if (status == TF_STATUS_OK && i < 4 && (status = add_words(x, &s)) == TF_STATUS_OK) status = emit_set(x, &s);
        tfi_set_close(x->memory, &s);
    }
    x->atom = NO_ATOM;
    x->before = 0;
    return status;
}

static tf_status escape(translation *x)
{
    tfi_set s = {0};
    uint32_t c = 0;
    tf_status status;

    if (x->at >= x->size) return refuse(x, "a backslash");
    const uint8_t letter = x->text[x->at];
    if (letter >= 128) return literal(x, next_char(x));
    x->at++;
    if (letter && strchr("dDwWsShH", letter)) {
        status = add_class(x, &s, (char)(letter | 0x20));
        if (status == TF_STATUS_OK && !(letter & 0x20)) status = tfi_set_invert(x->memory, &s);
        return atom_set(x, &s, status);
    }
    if (letter == 'p' || letter == 'P') return atom_set(x, &s, add_property(x, &s, letter == 'P'));
    if (letter == 'b' || letter == 'B') return boundary(x, letter == 'B');
    if (letter == 'A' || letter == 'z' || letter == 'Z') {
        const char text[] = {'\\', (char)letter, 0};
        x->atom = NO_ATOM;
        x->before = 0;
        return emit_string(x, text);
    }
    return (status = escaped_char(x, letter, &c)) < 0 ? status : literal(x, c);
}

/* Groups. */

static tf_status open_group(translation *x, const char *text)
{
    if (x->depth == GROUPS_MAX) return refuse(x, "so many groups in one another");
    x->groups[x->depth].options = x->options;
    x->groups[x->depth++].extra = 0;
    x->atom = NO_ATOM;
    x->before = 0;
    return emit_string(x, text);
}

/* (?i-m:...) or, without the colon, for all that follows in the group. `at` is behind the question mark. */
static tf_status option_group(translation *x)
{
    int options = x->options, on = 1;

    for (; x->at < x->size && x->text[x->at] != ':' && x->text[x->at] != ')'; x->at++) {
        const uint8_t c = x->text[x->at];
        const int bit = c == 'i' ? IGNORE_CASE : c == 'm' ? DOT_ALL : c == 'x' ? EXTENDED : 0;
        if (c == '-' && on) on = 0;
        else if (bit) options = on ? options | bit : options & ~bit;
        else return refuse(x, "a group of this kind");
    }
    if (x->at >= x->size) return refuse(x, "a group without an end");
    const int is_group = x->text[x->at++] == ':';
    const tf_status status = is_group ? open_group(x, "(?:") : emit_string(x, "(?:");
    if (!is_group) {
        if (x->depth == 0) return refuse(x, "an option");
        x->groups[x->depth - 1].extra++;
        x->atom = NO_ATOM;
        x->before = 0;
    }
    x->options = options;
    return status;
}

static tf_status group(translation *x)
{
    static const char *const kinds[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};

    if (!peek(x, "?")) return peek(x, "*") ? refuse(x, "a group of this kind") : open_group(x, "(?:");
    if (peek(x, "?#")) {
        while (x->at < x->size && x->text[x->at] != ')') x->at++;
        if (x->at++ >= x->size) return refuse(x, "a comment without an end");
        return TF_STATUS_OK;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char text[8] = "(";
        if (!peek(x, kinds[i])) continue;
        x->at += strlen(kinds[i]);
        return open_group(x, strcat(text, kinds[i]));
    }
    if (peek(x, "?<")) { /* a name, which nothing refers to */
        while (x->at < x->size && x->text[x->at] != '>') x->at++;
        if (x->at++ >= x->size) return refuse(x, "a group without an end");
        return open_group(x, "(?:");
    }
    x->at++;
    return option_group(x);
}

static tf_status close_group(translation *x, size_t begin)
{
    tf_status status = TF_STATUS_OK;

    if (x->depth <= 1) return refuse(x, "a parenthesis without its group");
    x->depth--;
    x->options = x->groups[x->depth].options;
    for (int i = 0; i <= x->groups[x->depth].extra && status == TF_STATUS_OK; i++) status = emit_string(x, ")");
    x->atom = begin;
    x->before = 0;
    return status;
}

/* Repetition. */

/* {n}, {n,}, {,m} or {n,m}: its size, or 0 if it is none. */
static size_t interval_size(const translation *x, int *is_fixed)
{
    size_t at = x->at + 1;
    int digits = 0, commas = 0;

    for (; at < x->size && ((x->text[at] >= '0' && x->text[at] <= '9') || x->text[at] == ','); at++) {
        digits += x->text[at] != ',';
        commas += x->text[at] == ',';
    }
    *is_fixed = commas == 0;
    return digits > 0 && commas < 2 && at < x->size && x->text[at] == '}' ? at + 1 - x->at : 0;
}

/* Put "(?:" before what begins at `atom`, and ")" behind it. */
static tf_status wrap(translation *x, size_t atom)
{
    tf_status status = emit_string(x, "(?:)");

    if (status < 0) return status;
    memmove(x->out + atom + 3, x->out + atom, x->out_size - 4 - atom);
    memcpy(x->out + atom, "(?:", 3);
    x->out[x->out_size - 1] = ')';
    return TF_STATUS_OK;
}

static tf_status repetition(translation *x)
{
    const uint8_t c = x->text[x->at];
    const size_t atom = x->atom;
    int is_fixed = 0;
    const size_t size = c == '{' ? interval_size(x, &is_fixed) : 1;
    tf_status status;

    if (size == 0) return x->at++, literal(x, c);
    if (atom == NO_ATOM) return refuse(x, "a repetition of nothing");
    if (c == '{' && x->text[x->at + 1] == ',') {
        if ((status = emit_string(x, "{0")) < 0 || (status = emit(x, (const char *)x->text + x->at + 1, size - 1)) < 0)
            return status;
    } else if ((status = emit(x, (const char *)x->text + x->at, size)) < 0) {
        return status;
    }
    x->at += size;
    x->atom = NO_ATOM;
    x->before = 0;
    if (x->at >= x->size) return TF_STATUS_OK;
    const uint8_t next = x->text[x->at];
    if (next == '?') {
        if (is_fixed) return refuse(x, "a fixed repetition with a question mark");
        x->at++;
        status = emit_string(x, "?");
    } else if (next == '+') {
        x->at++;
        if (c == '{' && (status = wrap(x, atom)) < 0) return status;
        status = emit_string(x, "+");
    }
    if (status == TF_STATUS_OK && x->at < x->size && strchr("*+?", x->text[x->at]) && x->text[x->at])
        return refuse(x, "a repetition of a repetition");
    return status;
}

/* The pattern. */

static tf_status step(translation *x, size_t *begins)
{
    const uint8_t c = x->text[x->at];
    tfi_set s = {0};
    tf_status status;

    if (x->options & EXTENDED && (c == ' ' || (c >= '\t' && c <= '\r'))) return x->at++, TF_STATUS_OK;
    if (x->options & EXTENDED && c == '#') {
        while (x->at < x->size && x->text[x->at] != '\n') x->at++;
        return TF_STATUS_OK;
    }
    switch (c) {
    case '*':
    case '+':
    case '?':
    case '{':
        return repetition(x);
    case '(':
        x->at++;
        begins[x->depth < GROUPS_MAX ? x->depth : 0] = x->out_size;
        return group(x);
    case ')':
        x->at++;
        return close_group(x, begins[x->depth > 0 ? x->depth - 1 : 0]);
    case '|':
    case '^':
    case '$':
        x->at++;
        x->atom = NO_ATOM;
        x->before = 0;
        return emit(x, (const char *)&c, 1);
    case '.':
        x->at++;
        x->atom = x->out_size;
        x->before = 0;
        return emit_string(x, x->options & DOT_ALL ? "(?s:.)" : ".");
    case '[':
        x->at++;
        x->class_depth = 0;
        status = read_set(x, &s);
        return atom_set(x, &s, status);
    case '\\':
        x->at++;
        return escape(x);
    default:
        return literal(x, next_char(x));
    }
}

/* The expression with the classes of each set in place of its number. */
static tf_status write_classes(translation *x, const tfi_partition *p)
{
    translation to = {.memory = x->memory, .where = x->where, .text = x->text, .size = x->size};
    char class[8];
    tf_status status = TF_STATUS_OK;

    for (size_t i = 0; i < x->out_size && status == TF_STATUS_OK; i++) {
        if (x->out[i] != MARK) {
            status = emit(&to, x->out + i, 1);
            continue;
        }
        const uint32_t number = (uint32_t)(uint8_t)x->out[i + 1] % 0x40 << 4 | ((uint32_t)(uint8_t)x->out[i + 2] & 15);
        uint32_t found = 0;
        i += 2;
        for (uint32_t k = 0; k < TFI_CLASSES_MAX && status == TF_STATUS_OK; k++) {
            if (!(p->members[k][number / 64] >> (number & 63) & 1)) continue;
            snprintf(class, sizeof class, "%s\\x%02x", found++ ? "" : "[", (unsigned)k);
            status = emit_string(&to, class);
        }
        if (status == TF_STATUS_OK) status = emit_string(&to, found ? "]" : "(?!)");
    }
    tfi_free(x->memory, x->out, x->out_capacity);
    x->out = to.out;
    x->out_size = to.out_size;
    x->out_capacity = to.out_capacity;
    return status;
}

tf_status tfi_regex_translate(tfi_memory *memory, const tfi_unicode *more, const char *text, size_t size, const char *where,
                              tfi_arena *arena, tfi_regex *out)
{
    translation *x = tfi_zalloc(memory, sizeof *x);
    tfi_partition *p = tfi_zalloc(memory, sizeof *p);
    size_t begins[GROUPS_MAX] = {0}; /* where in `out` the groups that are open begin */
    tfi_set newline = {0};
    tf_status status = x && p ? TF_STATUS_OK : TF_STATUS_NOMEM;

    if (status == TF_STATUS_OK) {
        x->memory = memory;
        x->more = more;
        x->where = where;
        x->text = (const uint8_t *)text;
        x->size = size;
        x->atom = NO_ATOM;
        p->classes = &out->classes;
        if ((status = tfi_set_add(x->memory, &newline, NEWLINE, NEWLINE)) == TF_STATUS_OK) x->sets[x->set_count++] = newline;
    }
    if (status == TF_STATUS_OK) status = size > PATTERN_MAX ? refuse(x, "its length") : open_group(x, "(?:");
    while (status == TF_STATUS_OK && x->at < x->size) status = step(x, begins);
    if (status == TF_STATUS_OK && x->depth != 1) status = refuse(x, "a group without an end");
    for (int i = 0; status == TF_STATUS_OK && i <= x->groups[0].extra; i++) status = emit_string(x, ")");
    if (status == TF_STATUS_OK && (status = tfi_sets_divide(memory, x->sets, x->set_count, arena, p)) == TF_STATUS_UNSUPPORTED)
        status = refuse(x, "so many classes");
    if (status == TF_STATUS_OK) status = write_classes(x, p);
    if (status == TF_STATUS_OK && !(out->text = tfi_arena_copy(arena, x->out, x->out_size))) status = TF_STATUS_NOMEM;
    if (x) {
        out->size = x->out_size;
        tfi_free(memory, x->out, x->out_capacity);
        tfi_free(memory, x->categories, TFI_POINT_LAST + 1);
        for (uint32_t i = 0; i < x->set_count; i++) tfi_set_close(x->memory, &x->sets[i]);
    }
    tfi_free(memory, x, sizeof *x);
    tfi_free(memory, p, sizeof *p);
    return status;
}
