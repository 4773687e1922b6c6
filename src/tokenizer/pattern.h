/* What a tokenizer.json looks for in text: a string or a regular expression. Its regular expressions are Oniguruma's; regex.c
 * writes them anew for PCRE2, and the ones that millions of files have are matched by hand. */
#ifndef TFI_TOKENIZER_PATTERN_H
#define TFI_TOKENIZER_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "tokenizer/unicode.h"

struct tfi_scratch;

typedef struct tfi_pattern tfi_pattern;

/* `text` as it is, or with is_regex a regular expression; `where` begins error texts. The tables must outlive it.
 * OK, CORRUPT, UNSUPPORTED (what cannot be said exactly; named) or NOMEM. */
tf_status tfi_pattern_open(tfi_memory *memory, const tfi_unicode *more, const char *text, size_t size, int is_regex,
                           const char *where, tfi_pattern **out);
void tfi_pattern_close(tfi_pattern *p); /* NULL does nothing */
int tfi_pattern_may_be_empty(const tfi_pattern *p);

/* The matches in a text, one after the other. Zero-initialise. */
typedef struct tfi_finding {
    size_t begin, end;          /* the one found */
    size_t next;                /* where the search goes on */
    size_t next_char, end_char; /* in code points, of a regular expression */
    int is_begun, has_last;
} tfi_finding;

/* Find the next match in `text`, valid UTF-8: *found is 0 if there is none. An empty match counts unless it is at the end of the
 * one before. OK, NOMEM, or INVALID: the pattern takes more steps than are allowed. */
tf_status tfi_pattern_next(const tfi_pattern *p, struct tfi_scratch *s, const uint8_t *text, size_t size, tfi_finding *f,
                           int *found);

/* Free what a thread kept for its matches. */
void tfi_pattern_scratch_close(struct tfi_scratch *s);

/* regex.c: an expression for PCRE2 over bytes (MULTILINE, a newline is LF), each of which is the class of a code point. */
typedef struct tfi_regex {
    const char *text;
    size_t size;
    tfi_unicode classes;
} tfi_regex;
/* Both in the arena. OK, UNSUPPORTED (what cannot be said exactly; named) or NOMEM. */
tf_status tfi_regex_translate(tfi_memory *memory, const tfi_unicode *more, const char *text, size_t size, const char *where,
                              tfi_arena *arena, tfi_regex *out);

#endif
