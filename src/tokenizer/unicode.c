#include "tokenizer/unicode.h"

#include <string.h>

#include <utf8proc.h>

#include "tokenizer/unicode_tables.h"

enum { UNASSIGNED_FIRST = 0x400, UNASSIGNED_LAST = 0xdff }; /* pages of planes 4 to 13, where nothing is */
enum {
    FLIPS = sizeof flag_flips / sizeof flag_flips[0],
    DELTAS = sizeof lower_deltas / sizeof lower_deltas[0],
    CHANGES = sizeof category_changes / sizeof category_changes[0],
    MORE = sizeof more_flips / sizeof more_flips[0],
    SCRIPTS = sizeof script_runs / sizeof script_runs[0],
    REGEX_SCRIPTS = sizeof regex_scripts / sizeof regex_scripts[0],
    EXTENDS = sizeof grapheme_extends / sizeof grapheme_extends[0]
};

/* The flags by utf8proc alone; unicode_tables.py holds the same rules. */
static uint8_t rules(uint32_t c, const utf8proc_property_t *property)
{
    const int category = property->category;
    uint8_t flags = 0;

    if (category >= UTF8PROC_CATEGORY_CC && category != UTF8PROC_CATEGORY_CS && c != 9 && c != 10 && c != 13)
        flags |= TFI_UNICODE_REMOVED;
    if ((category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP) || (c >= 9 && c <= 13) || c == 0x85)
        flags |= TFI_UNICODE_SPACE;
    if ((category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO) ||
        (c < 128 && category >= UTF8PROC_CATEGORY_SM && category <= UTF8PROC_CATEGORY_SO))
        flags |= TFI_UNICODE_PUNCTUATION;
    if (category == UTF8PROC_CATEGORY_MN) flags |= TFI_UNICODE_STRIPPED;
    if ((category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) || category == UTF8PROC_CATEGORY_PC)
        flags |= TFI_UNICODE_WORD;
    if (property->combining_class != 0) flags |= TFI_UNICODE_NONSTARTER;
    /* Hangul syllables decompose by arithmetic, without an entry. Compatibility forms have a type and stay. */
    if ((property->decomp_seqindex != UINT16_MAX && property->decomp_type == 0) || (c >= 0xac00 && c < 0xac00 + 11172))
        flags |= TFI_UNICODE_DECOMPOSES;
    if (property->lowercase_seqindex != UINT16_MAX) flags |= TFI_UNICODE_LOWERED;
    return flags;
}

/* Is its compatibility decomposition another one than its canonical one? */
static int has_compat(uint32_t c, const utf8proc_property_t *property)
{
    uint32_t one[TFI_DECOMPOSITION_MAX], other[TFI_DECOMPOSITION_MAX];

    if (property->decomp_seqindex == UINT16_MAX) return 0;
    const int n = tfi_unicode_decompose(c, 0, one);
    return n != tfi_unicode_decompose(c, 1, other) || memcmp(one, other, (size_t)n * sizeof *one) != 0;
}

/* The second flags by a category and utf8proc alone. */
static uint8_t more_rules(uint32_t c, int category, const utf8proc_property_t *property)
{
    uint8_t flags = 0;

    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) flags = TFI_CLASS_LETTER;
    if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) flags = TFI_CLASS_NUMBER | TFI_UNICODE_NUMERIC;
    if ((category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP) || (c >= 9 && c <= 13) || c == 0x85)
        flags = TFI_CLASS_SPACE;
    if ((category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) || category == UTF8PROC_CATEGORY_PC)
        flags |= TFI_UNICODE_REGEX_WORD;
    if (category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME) flags |= TFI_UNICODE_MARK;
    if (has_compat(c, property)) flags |= TFI_UNICODE_COMPAT;
    return flags;
}

/* First or second flags of the 256 code points from `first` on; at[] walk through the exceptions from call to call. */
static void fill_flags(uint32_t first, uint8_t page[256], int at[2])
{
    const utf8proc_property_t *last = NULL;
    uint8_t flags = 0;

    for (uint32_t c = first; c < first + 256; c++) {
        const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)c);
        if (property != last || c < 0xd800) flags = rules(c, property); /* no rule looks at larger numbers themselves */
        last = property;
        page[c & 255] = flags;
        while (at[0] < FLIPS && flag_flips[at[0]].last < c) ++at[0];
        if (at[0] < FLIPS && flag_flips[at[0]].first <= c) page[c & 255] ^= flag_flips[at[0]].flip;
    }
}

static int category_of(uint32_t c, const utf8proc_property_t *property, int *at)
{
    while (*at < CHANGES && category_changes[*at].last < c) ++*at;
    return *at < CHANGES && category_changes[*at].first <= c ? category_changes[*at].category : property->category;
}

static void fill_more(uint32_t first, uint8_t page[256], int at[2])
{
    for (uint32_t c = first; c < first + 256; c++) {
        const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)c);
        page[c & 255] = more_rules(c, category_of(c, property, &at[0]), property);
        while (at[1] < MORE && more_flips[at[1]].last < c) ++at[1];
        if (at[1] < MORE && more_flips[at[1]].first <= c) page[c & 255] ^= more_flips[at[1]].flip;
    }
}

static tf_status init_pages(tfi_unicode *u, tfi_arena *arena, void (*fill)(uint32_t first, uint8_t page[256], int at[2]))
{
    uint8_t page[256];
    int at[2] = {0};

    for (uint32_t p = 0; p < TFI_UNICODE_PAGES; p++) {
        if (p > UNASSIGNED_FIRST && p <= UNASSIGNED_LAST) {
            u->page[p] = u->page[UNASSIGNED_FIRST];
            continue;
        }
        fill(p << 8, page, at);
        if (p > 0 && memcmp(page, u->page[p - 1], sizeof page) == 0) {
            u->page[p] = u->page[p - 1];
            continue;
        }
        uint8_t *copy = tfi_arena_alloc(arena, sizeof page);
        if (!copy) return TF_STATUS_NOMEM;
        memcpy(copy, page, sizeof page);
        u->page[p] = copy;
    }
    return TF_STATUS_OK;
}

tf_status tfi_unicode_init(tfi_unicode *u, tfi_arena *arena)
{
    return init_pages(u, arena, fill_flags);
}

tf_status tfi_unicode_init_more(tfi_unicode *u, tfi_arena *arena)
{
    return init_pages(u, arena, fill_more);
}

void tfi_unicode_categories(uint8_t out[0x110000])
{
    int at = 0;

    for (uint32_t c = 0; c < 0x110000; c++) {
        const uint32_t page = c >> 8;
        if (page > UNASSIGNED_FIRST && page <= UNASSIGNED_LAST) out[c] = 0;
        else out[c] = (uint8_t)category_of(c, utf8proc_get_property((utf8proc_int32_t)c), &at);
    }
}

uint8_t tfi_unicode_script(uint32_t c)
{
    int low = 0, high = SCRIPTS;

    while (low < high) {
        const int middle = (low + high) / 2;
        if (script_runs[middle].last < c) low = middle + 1;
        else high = middle;
    }
    return low < SCRIPTS && script_runs[low].first <= c ? script_runs[low].script : 0;
}

int tfi_unicode_script_range(const char *name, size_t i, uint32_t *first, uint32_t *last)
{
    /* In the order of unicode_tables.py. */
    static const char *const names[] = {"Arabic", "Cyrillic", "Greek",    "Han",   "Hangul",
                                        "Hebrew", "Hiragana", "Katakana", "Latin", "Thai"};

    for (size_t k = 0; k < REGEX_SCRIPTS; k++) {
        if (strcmp(names[regex_scripts[k].script], name) != 0 || i-- > 0) continue;
        *first = regex_scripts[k].first;
        *last = regex_scripts[k].last;
        return 1;
    }
    return 0;
}

int tfi_unicode_decompose(uint32_t c, int is_compat, uint32_t out[TFI_DECOMPOSITION_MAX])
{
    utf8proc_int32_t parts[TFI_DECOMPOSITION_MAX];
    int boundary = 0;
    const utf8proc_option_t options = is_compat ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;
    const utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, parts, TFI_DECOMPOSITION_MAX, options, &boundary);

    if (n < 1 || n > TFI_DECOMPOSITION_MAX) return out[0] = c, 1;
    for (int i = 0; i < n; i++) out[i] = (uint32_t)parts[i];
    return (int)n;
}

uint32_t tfi_unicode_compose(uint32_t a, uint32_t b)
{
    utf8proc_int32_t pair[] = {(utf8proc_int32_t)a, (utf8proc_int32_t)b, 0};

    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1) return 0;
    return (uint32_t)pair[0];
}

int tfi_unicode_combining(uint32_t c)
{
    return utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

int tfi_unicode_lower(uint32_t c, uint32_t out[TFI_LOWER_MAX])
{
    if (c == 0x130) { /* the only one that becomes two: capital I with dot above */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    for (int i = 0; i < DELTAS; i++) {
        if (c >= lower_deltas[i].first && c <= lower_deltas[i].last) {
            out[0] = c + (uint32_t)lower_deltas[i].delta;
            return 1;
        }
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

/* A code point that utf8proc knows, in place of a mark that is too new for it or of what is not assigned but, being ignorable,
 * counts as a control. */
static uint32_t known_point(uint32_t c)
{
    for (int i = 0; i < EXTENDS; i++)
        if (c >= grapheme_extends[i].first && c <= grapheme_extends[i].last) return 0x300;
    return c == 0x2065 || (c >= 0xfff0 && c <= 0xfff8) || c == 0xe0000 || (c >= 0xe0002 && c <= 0xe001f) ||
                   (c >= 0xe0080 && c <= 0xe00ff) || (c >= 0xe01f0 && c <= 0xe0fff)
               ? 1
               : c;
}

int tfi_unicode_is_break(uint32_t a, uint32_t b, int32_t *state)
{
    const int quick = (a < 0x300 && b < 0x300 && !(a == '\r' && b == '\n')) ||
                      (a >= 0x3000 && a < 0xa000 && b > 0x3040 && b < 0xa000 && b != 0x3099 && b != 0x309a);

    if (!quick)
        return utf8proc_grapheme_break_stateful((utf8proc_int32_t)known_point(a), (utf8proc_int32_t)known_point(b), state);
    *state = 0;
    return 1;
}

int tfi_unicode_is_cjk(uint32_t c)
{
    if (c < 0x3400) return 0;
    return c <= 0x4dbf || (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) || (c >= 0x2f800 && c <= 0x2fa1f);
}

/* One sequence that is not ASCII: its size if it is valid, else minus the size of the wrong part. */
static int any_sequence(const uint8_t *p, size_t size)
{
    const uint8_t a = p[0];
    uint8_t low = 0x80, high = 0xbf; /* the range of the second byte, which rules out overlong forms, surrogates, > 10ffff */
    int n;

    if (a < 0xc2 || a > 0xf4) return -1;
    n = a < 0xe0 ? 2 : a < 0xf0 ? 3 : 4;
    if (a == 0xe0) low = 0xa0;
    if (a == 0xed) high = 0x9f;
    if (a == 0xf0) low = 0x90;
    if (a == 0xf4) high = 0x8f;
    for (int i = 1; i < n; i++) {
        if ((size_t)i >= size || p[i] < low || p[i] > high) return -i;
        low = 0x80;
        high = 0xbf;
    }
    return n;
}

/* The same of any; most take no loop. */
static inline int sequence(const uint8_t *p, size_t size)
{
    const uint8_t a = p[0];

    if (a < 0x80) return 1;
    if (a >= 0xc2 && a < 0xe0 && size > 1 && (p[1] & 0xc0) == 0x80) return 2;
    if (a > 0xe0 && a < 0xed && size > 2 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80) return 3;
    return any_sequence(p, size);
}

size_t tfi_utf8_valid(const uint8_t *text, size_t size, uint32_t *bad)
{
    size_t at = 0;

    while (at < size) {
        uint64_t eight;
        if (size - at >= sizeof eight) {
            memcpy(&eight, text + at, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        const int n = sequence(text + at, size - at);
        if (n < 0) {
            *bad = (uint32_t)-n;
            return at;
        }
        at += (size_t)n;
    }
    return size;
}

uint32_t tfi_utf8_count(const uint8_t *text, size_t size)
{
    uint32_t n = 0;

    for (size_t i = 0; i < size; i++) n += (text[i] & 0xc0) != 0x80;
    return n;
}
