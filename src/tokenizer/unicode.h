/* Unicode as the reference has it: utf8proc where the two agree, unicode_tables.h where they do not. The properties that the
 * inner loops ask for are gathered, once a tokenizer, in a two-stage table of one byte a code point. */
#ifndef TFI_TOKENIZER_UNICODE_H
#define TFI_TOKENIZER_UNICODE_H

#include <stdint.h>

#include "base/memory.h"

enum {
    TFI_UNICODE_REMOVED = 1,     /* dropped by clean_text: controls, formats, private use, U+FFFD */
    TFI_UNICODE_SPACE = 2,       /* White_Space */
    TFI_UNICODE_PUNCTUATION = 4, /* stands alone before word pieces are looked for */
    TFI_UNICODE_STRIPPED = 8,    /* dropped by strip_accents */
    TFI_UNICODE_WORD = 16,       /* \w */
    TFI_UNICODE_NONSTARTER = 32, /* canonical ordering may move it */
    TFI_UNICODE_DECOMPOSES = 64, /* NFD changes it */
    TFI_UNICODE_LOWERED = 128    /* lower case changes it */
};

/* What the pattern of GPT-2 tells apart: \p{L}, \p{N}, \s and all else; the low bits of the second byte of flags. */
enum { TFI_CLASS_OTHER, TFI_CLASS_LETTER, TFI_CLASS_NUMBER, TFI_CLASS_SPACE, TFI_CLASS_MASK = 3 };

/* Its other bits. */
enum {
    TFI_UNICODE_REGEX_WORD = 4, /* \w of a tokenizer.json's regular expressions */
    TFI_UNICODE_NUMERIC = 8,    /* what Digits takes for a digit */
    TFI_UNICODE_MARK = 16,      /* dropped by StripAccents */
    TFI_UNICODE_COMPAT = 32,    /* NFKD changes it in another way than NFD */
    TFI_UNICODE_COMPOSES = 64   /* NFC may make one of it and what is before it */
};

enum { TFI_UNICODE_PAGES = 0x110000 / 256, TFI_DECOMPOSITION_MAX = 18, TFI_LOWER_MAX = 2 };

typedef struct tfi_unicode {
    const uint8_t *page[TFI_UNICODE_PAGES]; /* 256 bytes each; neighbours that are equal share one */
} tfi_unicode;

/* A table of the first byte of flags, and one of the second. Their pages live in the arena. OK or NOMEM. */
tf_status tfi_unicode_init(tfi_unicode *u, tfi_arena *arena);
tf_status tfi_unicode_init_more(tfi_unicode *u, tfi_arena *arena);

static inline uint8_t tfi_unicode_flags(const tfi_unicode *u, uint32_t c)
{
    return u->page[c >> 8][c & 255];
}

/* The class that a table of second bytes gives. */
static inline uint8_t tfi_unicode_class(const tfi_unicode *u, uint32_t c)
{
    return u->page[c >> 8][c & 255] & TFI_CLASS_MASK;
}

/* The general category of each code point as regular expressions have it, numbered as utf8proc does (0: unassigned). */
void tfi_unicode_categories(uint8_t out[0x110000]);
/* The script that UnicodeScripts takes a code point for; 0: any. */
uint8_t tfi_unicode_script(uint32_t c);
/* The ranges of a script as regular expressions have them, from the `i`th on: 0 if there are no more, or no such script. */
int tfi_unicode_script_range(const char *name, size_t i, uint32_t *first, uint32_t *last);

/* Decomposition of a code point that has TFI_UNICODE_DECOMPOSES, or with is_compat TFI_UNICODE_COMPAT; returns how many there are.
 */
int tfi_unicode_decompose(uint32_t c, int is_compat, uint32_t out[TFI_DECOMPOSITION_MAX]);
/* What a and b, which has TFI_UNICODE_COMPOSES, become; 0 if they stay two. */
uint32_t tfi_unicode_compose(uint32_t a, uint32_t b);
/* Combining class of a code point that has TFI_UNICODE_NONSTARTER. */
int tfi_unicode_combining(uint32_t c);
/* Lower case of a code point that has TFI_UNICODE_LOWERED; returns how many there are. */
int tfi_unicode_lower(uint32_t c, uint32_t out[TFI_LOWER_MAX]);
/* Is there a grapheme boundary between two neighbours? *state is 0 at the begin of a text and goes from pair to pair. */
int tfi_unicode_is_break(uint32_t a, uint32_t b, int32_t *state);
/* What BERT calls a Chinese character. */
int tfi_unicode_is_cjk(uint32_t c);

/* Decode the code point at `text`, which must be valid UTF-8, and store its size. */
static inline uint32_t tfi_utf8_decode(const uint8_t *text, uint32_t *size)
{
    const uint32_t a = text[0];

    if (a < 0x80) return *size = 1, a;
    if (a < 0xe0) return *size = 2, (a & 31) << 6 | (text[1] & 63u);
    if (a < 0xf0) return *size = 3, (a & 15) << 12 | (text[1] & 63u) << 6 | (text[2] & 63u);
    return *size = 4, (a & 7) << 18 | (text[1] & 63u) << 12 | (text[2] & 63u) << 6 | (text[3] & 63u);
}

/* Write a code point's UTF-8 and return its size. */
static inline uint32_t tfi_utf8_encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    if (c < 0x800) return out[0] = (uint8_t)(0xc0 | c >> 6), out[1] = (uint8_t)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return out[0] = (uint8_t)(0xe0 | c >> 12), out[1] = (uint8_t)(0x80 | (c >> 6 & 63)),
               out[2] = (uint8_t)(0x80 | (c & 63)), 3;
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

/* The size of the valid UTF-8 at the start of `text`: `size` if all of it is. Where it is not all, *bad gets the bytes of the
 * first wrong part, as Unicode's "maximal subpart" and Python's errors="replace" count them (1 to 3). */
size_t tfi_utf8_valid(const uint8_t *text, size_t size, uint32_t *bad);

/* How many code points valid UTF-8 has. */
uint32_t tfi_utf8_count(const uint8_t *text, size_t size);

#endif
