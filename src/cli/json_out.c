/* json_out.c: JSON lines to standard output, one value a line. Strings are written as valid UTF-8 whatever their bytes are. */
#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int depth;
static bool started; /* the innermost object or array has a member */

static void member(const char *key)
{
    if (started) fputs(", ", stdout);
    started = true;
    if (key) printf("\"%s\": ", key);
}

void cli_json_begin(const char *key, char bracket)
{
    if (depth > 0) member(key);
    putchar(bracket);
    depth++;
    started = false;
}

void cli_json_end(char bracket)
{
    putchar(bracket);
    started = true;
    if (--depth > 0) return;
    putchar('\n');
    started = false;
}

/* Whatever some program may take for the end of a line is escaped, and every control character. */
static void character(const char *text, int bytes, int32_t c)
{
    if (c < 0) fputs("\\ufffd", stdout);
    else if (c == '"' || c == '\\') printf("\\%c", (int)c);
    else if (c == '\n') fputs("\\n", stdout);
    else if (c == '\t') fputs("\\t", stdout);
    else if (c == '\r') fputs("\\r", stdout);
    else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029) printf("\\u%04x", (unsigned)c);
    else fwrite(text, 1, (size_t)bytes, stdout);
}

void cli_json_text(const char *key, const char *text, int64_t size)
{
    member(key);
    if (!text) {
        fputs("null", stdout);
        return;
    }
    if (size < 0) size = (int64_t)strlen(text);
    putchar('"');
    for (int64_t i = 0; i < size;) {
        int bytes;
        const int32_t c = cli_code_point(text + i, size - i, &bytes);

        character(text + i, bytes, c);
        i += bytes;
    }
    putchar('"');
}

void cli_json_integer(const char *key, int64_t value)
{
    member(key);
    printf("%lld", (long long)value);
}

void cli_json_number(const char *key, double value)
{
    member(key);
    if (isfinite(value)) printf("%.9g", value);
    else fputs("null", stdout);
}

void cli_json_range(const char *key, int64_t begin, int64_t end)
{
    cli_json_begin(key, '[');
    cli_json_integer(NULL, begin);
    cli_json_integer(NULL, end);
    cli_json_end(']');
}

void cli_json_begin_text(const cli_texts *texts, int64_t index)
{
    cli_json_begin(NULL, '{');
    cli_json_integer("index", index);
    cli_json_text("text", texts->texts[index].data ? texts->texts[index].data : "", texts->texts[index].size);
    if (texts->pairs) cli_json_text("pair", texts->pairs[index].data, texts->pairs[index].size);
}
