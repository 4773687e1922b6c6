#include "tokenizer/unicode.h"

#include <string.h>

#include <utf8proc.h>

#include "tokenizer/unicode_tables.h"

enum { UNASSIGNED_FIRST = 0x400, UNASSIGNED_LAST = 0xdff }; /* pages of planes 4 to 13, where nothing is */
enum {
    FLIPS = sizeof flag_flips / sizeof flag_flips[0],
    DELTAS = sizeof lower_deltas / sizeof lower_deltas[0],
    CHANGES = sizeof class_changes / sizeof class_changes[0],
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

/* The class by utf8proc alone. */
static uint8_t class_rules(uint32_t c, const utf8proc_property_t *property)
{
    const int category = property->category;

    if (rules(c, property) & TFI_UNICODE_SPACE) return TFI_CLASS_SPACE;
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return TFI_CLASS_LETTER;
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO ? TFI_CLASS_NUMBER : TFI_CLASS_OTHER;
}

/* Flags, or classes, of the 256 code points from `first` on; *at walks through the exceptions from call to call. */
static void fill_flags(uint32_t first, uint8_t page[256], int *at)
{
    const utf8proc_property_t *last = NULL;
    uint8_t flags = 0;

    for (uint32_t c = first; c < first + 256; c++) {
        const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)c);
        if (property != last || c < 0xd800) flags = rules(c, property); /* no rule looks at larger numbers themselves */
        last = property;
        page[c & 255] = flags;
        while (*at < FLIPS && flag_flips[*at].last < c) ++*at;
        if (*at < FLIPS && flag_flips[*at].first <= c) page[c & 255] ^= flag_flips[*at].flip;
    }
}

static void fill_classes(uint32_t first, uint8_t page[256], int *at)
{
    for (uint32_t c = first; c < first + 256; c++) {
        page[c & 255] = class_rules(c, utf8proc_get_property((utf8proc_int32_t)c));
        while (*at < CHANGES && class_changes[*at].last < c) ++*at;
        if (*at < CHANGES && class_changes[*at].first <= c) page[c & 255] = class_changes[*at].class;
    }
}

static tf_status init_pages(tfi_unicode *u, tfi_arena *arena, void (*fill)(uint32_t first, uint8_t page[256], int *at))
{
    uint8_t page[256];
    int at = 0;

    for (uint32_t p = 0; p < TFI_UNICODE_PAGES; p++) {
        if (p > UNASSIGNED_FIRST && p <= UNASSIGNED_LAST) {
            u->page[p] = u->page[UNASSIGNED_FIRST];
            continue;
        }
        fill(p << 8, page, &at);
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

tf_status tfi_unicode_init_classes(tfi_unicode *u, tfi_arena *arena)
{
    return init_pages(u, arena, fill_classes);
}

int tfi_unicode_decompose(uint32_t c, uint32_t out[TFI_DECOMPOSITION_MAX])
{
    utf8proc_int32_t parts[TFI_DECOMPOSITION_MAX];
    int boundary = 0;
    const utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, parts, TFI_DECOMPOSITION_MAX, UTF8PROC_DECOMPOSE, &boundary);

    if (n < 1 || n > TFI_DECOMPOSITION_MAX) return out[0] = c, 1;
    for (int i = 0; i < n; i++) out[i] = (uint32_t)parts[i];
    return (int)n;
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

/* A mark that utf8proc knows, in place of one that is too new for it. */
static uint32_t known_mark(uint32_t c)
{
    for (int i = 0; i < EXTENDS; i++)
        if (c >= grapheme_extends[i].first && c <= grapheme_extends[i].last) return 0x300;
    return c;
}

int tfi_unicode_is_break(uint32_t a, uint32_t b, int32_t *state)
{
    const int quick = (a < 0x300 && b < 0x300 && !(a == '\r' && b == '\n')) ||
                      (a >= 0x3000 && a < 0xa000 && b > 0x3040 && b < 0xa000 && b != 0x3099 && b != 0x309a);

    if (!quick)
        return utf8proc_grapheme_break_stateful((utf8proc_int32_t)known_mark(a), (utf8proc_int32_t)known_mark(b), state);
    *state = 0;
    return 1;
}

int tfi_unicode_is_cjk(uint32_t c)
{
    if (c < 0x3400) return 0;
    return c <= 0x4dbf || (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) || (c >= 0x2f800 && c <= 0x2fa1f);
}

/* One sequence: its size if it is valid, else minus the size of the wrong part. */
static int sequence(const uint8_t *p, size_t size)
{
    const uint8_t a = p[0];
    uint8_t low = 0x80, high = 0xbf; /* the range of the second byte, which rules out overlong forms, surrogates, > 10ffff */
    int n;

    if (a < 0x80) return 1;
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
