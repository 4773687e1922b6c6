/* cli_texts.c: where a command's texts come from: its arguments, the lines of a file, or standard input. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *stream_read(const cli_settings *s, FILE *stream, const char *name, int64_t *size)
{
    size_t used = 0, capacity = 1 << 16;
    char *text = cli_alloc((int64_t)capacity, 1);

    for (size_t n; (n = fread(text + used, 1, capacity - 1 - used, stream)) > 0;) {
        used += n;
        if (capacity - 1 - used > capacity / 4) continue;
        capacity *= 2;
        if (!(text = realloc(text, capacity))) cli_fail(s, CLI_REFUSED, "out of memory for %s", name);
    }
    if (ferror(stream)) cli_fail(s, CLI_FILE, "cannot read %s: %s", name, strerror(errno));
    text[used] = '\0';
    *size = (int64_t)used;
    return text;
}

char *cli_file_read(const cli_settings *s, const char *path, int64_t *size)
{
    FILE *file;
    char *text;

    if (!path || !strcmp(path, "-")) {
        if (isatty(STDIN_FILENO) && !cli_on(s->quiet)) fprintf(stderr, "tfinfer: reading the terminal; end with Ctrl-D\n");
        return stream_read(s, stdin, "standard input", size);
    }
    if (!(file = fopen(path, "rb"))) cli_fail(s, CLI_FILE, "cannot open %s: %s", path, strerror(errno));
    text = stream_read(s, file, path, size);
    fclose(file);
    return text;
}

/* The part of [at, end) before its first `mark`, and what follows; all of it and NULL where there is none. */
static tf_text split(const char *at, const char *end, char mark, const char **rest)
{
    const char *const found = memchr(at, mark, (size_t)(end - at));

    *rest = found ? found + 1 : NULL;
    return (tf_text){at, (found ? found : end) - at};
}

static int64_t line_count(const char *text, int64_t size)
{
    int64_t lines = 0;

    for (const char *at = text, *end = text + size; at && at < end; lines++) split(at, end, '\n', &at);
    return lines;
}

static void texts_reserve(cli_texts *t, int64_t count, bool pair)
{
    t->texts = cli_alloc(count, sizeof *t->texts);
    t->pairs = pair ? cli_alloc(count, sizeof *t->pairs) : NULL;
}

/* Lines end with LF or CRLF, the last one with or without; a byte order mark before the first is dropped. */
static void texts_from_lines(cli_texts *t, const cli_settings *s, int64_t size, bool pair)
{
    const char *at = t->buffer, *const end = t->buffer + size;

    if (size >= 3 && !memcmp(at, "\xef\xbb\xbf", 3)) at += 3;
    texts_reserve(t, line_count(at, end - at), pair);
    while (at && at < end) {
        tf_text line = split(at, end, '\n', &at);
        const char *second;

        if (line.size > 0 && line.data[line.size - 1] == '\r') line.size--;
        t->texts[t->count] = line;
        if (pair) {
            t->texts[t->count] = split(line.data, line.data + line.size, '\t', &second);
            if (!second)
                cli_fail(s, CLI_REFUSED, "line %lld has no tab; --pair needs one between the two texts",
                         (long long)t->count + 1);
            t->pairs[t->count] = (tf_text){second, line.data + line.size - second};
        }
        t->count++;
    }
}

static void texts_from_arguments(cli_texts *t, const cli_settings *s, bool pair)
{
    const int step = pair ? 2 : 1;

    if (s->argument_count % step) cli_fail(s, CLI_USAGE, "--pair needs an even number of texts, not %d", s->argument_count);
    texts_reserve(t, s->argument_count, pair);
    for (int i = 0; i < s->argument_count; i += step, t->count++) {
        t->texts[t->count] = tf_text_of(s->arguments[i]);
        if (pair) t->pairs[t->count] = tf_text_of(s->arguments[i + 1]);
    }
}

void cli_texts_open_lines(cli_texts *t, const cli_settings *s, bool pair)
{
    int64_t size;

    memset(t, 0, sizeof *t);
    t->buffer = cli_file_read(s, s->file, &size);
    texts_from_lines(t, s, size, pair);
}

void cli_texts_open(cli_texts *t, const cli_settings *s, bool pair)
{
    const bool dash = s->argument_count == 1 && !strcmp(s->arguments[0], "-");

    if (s->file && s->argument_count > 0) cli_fail(s, CLI_USAGE, "texts come from --file or from arguments, not both");
    if (s->argument_count == 0 || dash) {
        cli_texts_open_lines(t, s, pair);
        return;
    }
    memset(t, 0, sizeof *t);
    texts_from_arguments(t, s, pair);
}

void cli_texts_close(cli_texts *t)
{
    free(t->texts);
    free(t->pairs);
    free(t->buffer);
}

int64_t cli_text_size(tf_text t)
{
    return t.size < 0 ? (int64_t)strlen(t.data) : t.size;
}

int32_t cli_code_point(const char *text, int64_t size, int *bytes)
{
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char lead = (unsigned char)text[0];
    const int length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    int32_t value = length < 2 ? lead : lead & (0x7f >> length);

    *bytes = 1;
    if (length == 0 || length > size) return -1;
    for (int i = 1; i < length; i++) {
        if (((unsigned char)text[i] & 0xc0) != 0x80) return -1;
        value = value << 6 | ((unsigned char)text[i] & 0x3f);
    }
    if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return -1;
    *bytes = length;
    return value;
}
