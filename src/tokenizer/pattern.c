/* Finding patterns. The rules of where a search goes on are those of the onig crate's find_iter.
 *
 * PCRE2 has the text as the classes of its code points (regex.c) and allocates through the tokenizer's memory. Its steps are bounded, so
 * that time grows with the text: STEPS_FEW at each place, and for the places of a text that need more STEPS_MORE together and STEPS_CHAR
 * for each code point. After those, or HEAP_MAX KiB, it gives up with a status. It does not count running along what can match in one way
 * only, so that it does so only where a pattern itself says it (a possessive repetition). Its compiler to machine code made pipelines 1.1
 * to 1.5 times as fast, but takes memory outside of all budgets, executable at that: it is not used. Matched by hand are GPT-2's pattern
 * and the one of cl100k, which Llama 3 and Qwen 2 have too. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/pattern.h"

#include <pcre2.h>
#include <string.h>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

enum { STEPS_FEW = 256, STEPS_MORE = 4000000, STEPS_CHAR = 64, STEPS_FACTOR = 8, HEAP_MAX = 65536, TEXT_SHOWN = 64 };

struct tfi_pattern {
    tfi_memory *memory;
    const tfi_unicode *more;
    size_t (*end)(const tfi_pattern *p, const uint8_t *text, size_t at, size_t size); /* by hand: matches lie side by side */
    size_t digits_max;
    pcre2_code *code;
    tfi_arena arena; /* of regex */
    tfi_regex regex;
    size_t text_size;
    char text[]; /* with a NUL */
};

/* Memory: PCRE2 frees without a size, so each block begins with its own. */

enum { HEAD = 64 };

static void *pcre2_alloc(size_t size, void *memory)
{
    uint8_t *block = size <= SIZE_MAX - HEAD ? tfi_alloc(memory, size + HEAD) : NULL;

    if (!block) return NULL;
    memcpy(block, &size, sizeof size);
    return block + HEAD;
}

static void pcre2_release(void *p, void *memory)
{
    size_t size;

    if (!p) return;
    memcpy(&size, (uint8_t *)p - HEAD, sizeof size);
    tfi_free(memory, (uint8_t *)p - HEAD, size + HEAD);
}

/* By hand. */

static inline int class_at(const tfi_pattern *p, const uint8_t *at, uint32_t *size)
{
    return tfi_unicode_class(p->more, tfi_utf8_decode(at, size));
}

/* Behind all code points of a class from `at` on, at most `most`; *last is the last of them. */
static size_t run_end(const tfi_pattern *p, const uint8_t *text, size_t at, size_t size, int class, size_t most, size_t *last)
{
    uint32_t n;

    for (*last = at; most > 0 && at < size && class_at(p, text + at, &n) == class; most--) {
        *last = at;
        at += n;
    }
    return at;
}

/* 's, 't, 're, 've, 'm, 'll, 'd, in any case if `fold`: how long the one at an apostrophe is, or 0. */
static size_t contraction(const uint8_t *at, size_t size, int fold)
{
    const uint8_t mask = fold ? 0x20 : 0;

    if (size < 2) return 0;
    const uint8_t a = at[1] | mask;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (size < 3) return 0;
    const uint8_t b = at[2] | mask;
    if (fold && at[1] == 0xc5 && at[2] == 0xbf) return 3; /* U+017F is an s, too */
    return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* White space up to the last code point of it, which goes to what follows, if it is not the only one. */
static size_t blanks_end(const tfi_pattern *p, const uint8_t *text, size_t at, size_t size)
{
    size_t last;
    const size_t end = run_end(p, text, at, size, TFI_CLASS_SPACE, SIZE_MAX, &last);

    return end < size && last > at ? last : end;
}

/*  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+  */
static size_t gpt2_end(const tfi_pattern *p, const uint8_t *text, size_t at, size_t size)
{
    uint32_t n;
    size_t last;

    if (text[at] == '\'' && (last = contraction(text + at, size - at, 0)) > 0) return at + last;
    const size_t word = text[at] == ' ' && at + 1 < size ? at + 1 : at;
    const int class = class_at(p, text + word, &n);
    if (class == TFI_CLASS_SPACE) return blanks_end(p, text, at, size);
    return run_end(p, text, word, size, class, SIZE_MAX, &last);
}

static int is_line_end(uint8_t byte)
{
    return byte == '\r' || byte == '\n';
}

/*  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *  or with \p{N} for \p{N}{1,3} */
static size_t cl100k_end(const tfi_pattern *p, const uint8_t *text, size_t at, size_t size)
{
    uint32_t n, next_size = 0;
    size_t last;
    int next = TFI_CLASS_SPACE;

    if (text[at] == '\'' && (last = contraction(text + at, size - at, 1)) > 0) return at + last;
    const int class = class_at(p, text + at, &n);
    if (class == TFI_CLASS_LETTER) return run_end(p, text, at, size, class, SIZE_MAX, &last);
    if (class == TFI_CLASS_NUMBER) return run_end(p, text, at, size, class, p->digits_max, &last);
    if (at + n < size) next = class_at(p, text + at + n, &next_size);
    if (next == TFI_CLASS_LETTER && !is_line_end(text[at])) return run_end(p, text, at + n, size, next, SIZE_MAX, &last);
    if (class == TFI_CLASS_OTHER || (text[at] == ' ' && next == TFI_CLASS_OTHER)) {
        at = run_end(p, text, class == TFI_CLASS_OTHER ? at : at + 1, size, TFI_CLASS_OTHER, SIZE_MAX, &last);
        while (at < size && is_line_end(text[at])) at++;
        return at;
    }
    const size_t end = run_end(p, text, at, size, TFI_CLASS_SPACE, SIZE_MAX, &last);
    for (size_t i = end; i > at; i--)
        if (is_line_end(text[i - 1])) return i;
    return blanks_end(p, text, at, size);
}

static const struct {
    const char *text;
    size_t (*end)(const tfi_pattern *p, const uint8_t *text, size_t at, size_t size);
    size_t digits_max;
} by_hand[] = {{"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", gpt2_end, SIZE_MAX},
               {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
                cl100k_end, 3},
               {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
                cl100k_end, 1}};

/* Opening. */

static tf_status compile(tfi_pattern *p, const char *where)
{
    int error = 0;
    PCRE2_SIZE at = 0;
    PCRE2_UCHAR message[128];
    pcre2_general_context *general = pcre2_general_context_create(pcre2_alloc, pcre2_release, p->memory);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;

    if (context) {
        (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
        p->code = pcre2_compile((PCRE2_SPTR)p->regex.text, p->regex.size,
                                PCRE2_MULTILINE | PCRE2_NEVER_UTF | PCRE2_NO_AUTO_POSSESS, &error, &at, context);
    }
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (p->code) return TF_STATUS_OK;
    if (error == 0 || error == 121) return tfi_fail(TF_STATUS_NOMEM, "%s: out of memory", where); /* 121: no memory */
    if (pcre2_get_error_message(error, message, sizeof message) < 0) message[0] = 0;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: the pattern \"%.*s\" is not supported: %s", where, TEXT_SHOWN, p->text,
                    (const char *)message);
}

static tf_status open_regex(tfi_pattern *p, const char *where)
{
    for (size_t i = 0; i < sizeof by_hand / sizeof by_hand[0]; i++) {
        if (strlen(by_hand[i].text) != p->text_size || memcmp(by_hand[i].text, p->text, p->text_size) != 0) continue;
        p->end = by_hand[i].end;
        p->digits_max = by_hand[i].digits_max;
        return TF_STATUS_OK;
    }
    p->arena.memory = p->memory;
    const tf_status status = tfi_regex_translate(p->memory, p->more, p->text, p->text_size, where, &p->arena, &p->regex);
    return status < 0 ? status : compile(p, where);
}

tf_status tfi_pattern_open(tfi_memory *memory, const tfi_unicode *more, const char *text, size_t size, int is_regex,
                           const char *where, tfi_pattern **out)
{
    tfi_pattern *p = size < INT32_MAX ? tfi_zalloc(memory, sizeof *p + size + 1) : NULL;
    tf_status status = TF_STATUS_OK;

    *out = NULL;
    if (!p) return TF_STATUS_NOMEM;
    p->memory = memory;
    p->more = more;
    p->text_size = size;
    memcpy(p->text, text, size);
    if (is_regex || size == 0) status = open_regex(p, where);
    if (status < 0) tfi_pattern_close(p);
    else *out = p;
    return status;
}

void tfi_pattern_close(tfi_pattern *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    tfi_arena_close(&p->arena);
    tfi_free(p->memory, p, sizeof *p + p->text_size + 1);
}

int tfi_pattern_may_be_empty(const tfi_pattern *p)
{
    uint32_t may_be = 0;

    return p->code && pcre2_pattern_info(p->code, PCRE2_INFO_MATCHEMPTY, &may_be) == 0 && may_be;
}

/* Finding. */

/* What a thread needs to match with any pattern. */
static tf_status match_data(tfi_scratch *s)
{
    pcre2_general_context *general;

    if (s->match_data && s->match_limits) return TF_STATUS_OK;
    if (!(general = pcre2_general_context_create(pcre2_alloc, pcre2_release, s->memory))) return TF_STATUS_NOMEM;
    if (!s->match_data) s->match_data = pcre2_match_data_create(1, general);
    s->match_limits = pcre2_match_context_create(general);
    pcre2_general_context_free(general);
    if (!s->match_data || !s->match_limits) return TF_STATUS_NOMEM;
    (void)pcre2_set_heap_limit(s->match_limits, HEAP_MAX);
    return TF_STATUS_OK;
}

void tfi_pattern_scratch_close(tfi_scratch *s)
{
    pcre2_match_data_free(s->match_data);
    pcre2_match_context_free(s->match_limits);
    s->match_data = s->match_limits = NULL;
}

/* The classes of the text in s->classes. */
static tf_status classify(const tfi_pattern *p, tfi_scratch *s, const uint8_t *text, size_t size)
{
    const tf_status status = tfi_reserve(s->memory, (void **)&s->classes, &s->class_capacity, size + 1, 1);
    uint32_t n;

    s->class_count = 0;
    if (status < 0) return status;
    for (size_t at = 0; at < size; at += n)
        s->classes[s->class_count++] = tfi_unicode_flags(&p->regex.classes, tfi_utf8_decode(text + at, &n));
    s->pattern_steps -= STEPS_CHAR * (int64_t)s->class_count;
    return TF_STATUS_OK;
}

/* Where `count` code points from `at` on end. */
static size_t skip_chars(const uint8_t *text, size_t at, size_t count)
{
    uint32_t n;

    for (; count > 0; count--, at += n) (void)tfi_utf8_decode(text + at, &n);
    return at;
}

static int match_from(const tfi_pattern *p, tfi_scratch *s, size_t at, uint32_t options, uint32_t steps)
{
    (void)pcre2_set_match_limit(s->match_limits, steps);
    return pcre2_match(p->code, s->classes, s->class_count, at, options, s->match_data, s->match_limits);
}

/* The first match at or behind `at`, as pcre2_match() gives it. Where few steps at each place do not do it goes on place by place, and
 * tries the one that needs more with ever more. */
static int match(const tfi_pattern *p, tfi_scratch *s, size_t at)
{
    uint32_t steps = STEPS_FEW;
    int count = match_from(p, s, at, 0, steps);

    while (count == PCRE2_ERROR_MATCHLIMIT) {
        count = match_from(p, s, at, PCRE2_ANCHORED, steps);
        if (count == PCRE2_ERROR_MATCHLIMIT) {
            s->pattern_steps += steps;
            if (s->pattern_steps > STEPS_MORE || steps > UINT32_MAX / STEPS_FACTOR) break;
            steps *= STEPS_FACTOR;
        } else if (count == PCRE2_ERROR_NOMATCH && at < s->class_count) {
            at++;
            count = steps > STEPS_FEW ? match_from(p, s, at, 0, STEPS_FEW) : PCRE2_ERROR_MATCHLIMIT;
            steps = STEPS_FEW;
        }
    }
    return count;
}

static tf_status search(const tfi_pattern *p, tfi_scratch *s, const uint8_t *text, size_t size, tfi_finding *f, int *found)
{
    tf_status status = match_data(s);

    if (status == TF_STATUS_OK && !f->is_begun) status = classify(p, s, text, size);
    if (status < 0) return status;
    f->is_begun = 1;
    const int count = match(p, s, f->next_char);
    *found = count >= 0;
    if (count == PCRE2_ERROR_NOMATCH) return TF_STATUS_OK;
    if (count == PCRE2_ERROR_NOMEMORY) return tfi_fail(TF_STATUS_NOMEM, "out of memory: matching a pattern");
    if (count < 0)
        return tfi_fail(TF_STATUS_INVALID, "the pattern \"%.*s\" takes too many steps on this text", TEXT_SHOWN, p->text);
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s->match_data);
    f->begin = skip_chars(text, f->next, range[0] - f->next_char);
    f->end = skip_chars(text, f->begin, range[1] - range[0]);
    f->end_char = range[1];
    return TF_STATUS_OK;
}

static int find_text(const tfi_pattern *p, const uint8_t *text, size_t size, tfi_finding *f)
{
    for (size_t at = f->next; at + p->text_size <= size; at++) {
        const uint8_t *first = memchr(text + at, p->text[0], size - p->text_size - at + 1);
        if (!first) return 0;
        at = (size_t)(first - text);
        if (memcmp(first, p->text, p->text_size) != 0) continue;
        f->begin = at;
        f->end = at + p->text_size;
        return 1;
    }
    return 0;
}

tf_status tfi_pattern_next(const tfi_pattern *p, tfi_scratch *s, const uint8_t *text, size_t size, tfi_finding *f, int *found)
{
    const int has_last = f->has_last;
    const size_t last = f->end;
    uint32_t n;

    for (;;) {
        tf_status status = TF_STATUS_OK;
        *found = 0;
        if (f->next > size || (f->next == size && !p->code)) return TF_STATUS_OK;
        if (p->end) {
            f->begin = f->next;
            f->end = p->end(p, text, f->next, size);
            *found = 1;
        } else if (p->code) {
            status = search(p, s, text, size, f, found);
        } else {
            *found = find_text(p, text, size, f);
        }
        if (status < 0 || !*found) return status;
        if (f->end > f->begin || !has_last || f->end != last) break;
        /* Nothing, where the last match ended. */
        if (f->next >= size) return *found = 0, f->next = size + 1, TF_STATUS_OK;
        tfi_utf8_decode(text + f->next, &n);
        f->next += n;
        f->next_char++;
    }
    f->next = f->end;
    f->next_char = f->end_char;
    f->has_last = 1;
    return TF_STATUS_OK;
}
