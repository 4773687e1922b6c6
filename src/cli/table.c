/* table.c: aligned tables for a person. Widths are terminal columns (wcwidth, so CJK counts two), and no byte of a text reaches
 * the terminal as a control character. main() has set LC_CTYPE, which wcwidth needs. */
#define _XOPEN_SOURCE 700
#include "cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

enum { CELL_GAP = 2, HEADING_WIDTH = 100, CONTEXT_BYTES = 30 };

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
static const char ellipsis[] = "\xe2\x80\xa6";    /* U+2026, one column */

char *cli_printable(const char *text, int64_t size)
{
    char *out, *to;

    if (size < 0) size = (int64_t)strlen(text);
    out = to = cli_alloc(3 * size + 1, 1); /* one byte becomes three at most */
    for (int64_t i = 0; i < size;) {
        int bytes;
        const int32_t c = cli_code_point(text + i, size - i, &bytes);

        if (c == '\t' || c == '\n' || c == '\r') *to++ = ' ';
        else if (c < 0x20 || (c >= 0x7f && c < 0xa0)) to = (char *)memcpy(to, replacement, 3) + 3;
        else to = (char *)memcpy(to, text + i, (size_t)bytes) + bytes;
        i += bytes;
    }
    return out;
}

static int width_of(int32_t c)
{
    const int width = wcwidth((wchar_t)c);

    return width < 0 ? 1 : width;
}

static int width_of_text(const char *text)
{
    const int64_t size = (int64_t)strlen(text);
    int width = 0;

    for (int64_t i = 0, bytes = 0; i < size; i += bytes) {
        int n;
        width += width_of(cli_code_point(text + i, size - i, &n));
        bytes = n;
    }
    return width;
}

/* Cut `text` (printable) to `max` columns, the last of them an ellipsis. The buffer has room: it was made 3 bytes a byte. */
static void width_limit(char *text, int max)
{
    const int64_t size = (int64_t)strlen(text);
    int width = 0, n;

    if (max <= 0 || width_of_text(text) <= max) return;
    for (int64_t i = 0; i < size; i += n) {
        const int next = width_of(cli_code_point(text + i, size - i, &n));

        if (width + next > max - 1) {
            text[i] = '\0';
            break;
        }
        width += next;
    }
    strcat(text, ellipsis);
}

void cli_table_open(cli_table *t, const cli_column *columns, int column_count)
{
    memset(t, 0, sizeof *t);
    t->columns = columns;
    t->column_count = column_count;
}

void cli_table_text(cli_table *t, const char *text, int64_t size)
{
    const int max = t->columns[t->cell_count % t->column_count].max_width;

    if (size < 0) size = (int64_t)strlen(text);
    if (max > 0 && size > 64 * (int64_t)max) size = 64 * (int64_t)max; /* of a line of megabytes only the start can show */
    if (t->cell_count == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 64;
        if (!(t->cells = realloc(t->cells, (size_t)t->capacity * sizeof *t->cells))) exit(CLI_REFUSED);
    }
    t->cells[t->cell_count] = cli_printable(text, size);
    width_limit(t->cells[t->cell_count++], max);
}

void cli_table_cell(cli_table *t, const char *format, ...)
{
    char text[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    cli_table_text(t, text, -1);
}

static char *append(char *to, const char *from, int64_t size)
{
    return (char *)memcpy(to, from, (size_t)size) + size;
}

/* Whether a byte continues a UTF-8 sequence. */
static bool is_inside(char byte)
{
    return ((unsigned char)byte & 0xc0) == 0x80;
}

void cli_table_context(cli_table *t, tf_text text, int64_t begin, int64_t end)
{
    const int64_t size = cli_text_size(text);
    int64_t from = begin > CONTEXT_BYTES ? begin - CONTEXT_BYTES : 0,
            to = size - end > CONTEXT_BYTES ? end + CONTEXT_BYTES : size;
    char *cell, *at;

    while (from < begin && is_inside(text.data[from])) from++;
    while (to > end && to < size && is_inside(text.data[to])) to--;
    at = cell = cli_alloc(to - from + 10, 1);
    if (from > 0) at = append(at, ellipsis, 3);
    at = append(at, text.data + from, begin - from);
    at = append(at, "[", 1);
    at = append(at, text.data + begin, end - begin);
    at = append(at, "]", 1);
    at = append(at, text.data + end, to - end);
    if (to < size) append(at, ellipsis, 3);
    cli_table_text(t, cell, -1);
    free(cell);
}

/* One line; blanks are printed only in front of a cell, so no line ends with them. */
static void row_print(const cli_table *t, const int *widths, char *const *cells)
{
    int blanks = 0;

    for (int c = 0; c < t->column_count; c++) {
        const char *const text = cells ? cells[c] : t->columns[c].title;
        const int space = widths[c] - width_of_text(text);

        if (t->columns[c].right) blanks += space;
        if (*text) printf("%*s%s", blanks, "", text);
        if (*text) blanks = 0;
        blanks += (t->columns[c].right ? 0 : space) + CELL_GAP;
    }
    putchar('\n');
}

static int column_width(const cli_table *t, int column)
{
    int width = width_of_text(t->columns[column].title);

    for (int64_t i = column; i < t->cell_count; i += t->column_count) {
        const int cell = width_of_text(t->cells[i]);
        if (cell > width) width = cell;
    }
    return width;
}

void cli_table_print(cli_table *t)
{
    int *const widths = cli_alloc(t->column_count, sizeof *widths);
    bool titled = false;

    for (int c = 0; c < t->column_count; c++) {
        widths[c] = column_width(t, c);
        titled |= t->columns[c].title[0] != '\0';
    }
    if (titled) row_print(t, widths, NULL);
    for (int64_t i = 0; i + t->column_count <= t->cell_count; i += t->column_count) row_print(t, widths, t->cells + i);
    for (int64_t i = 0; i < t->cell_count; i++) free(t->cells[i]);
    t->cell_count = 0;
    free(widths);
}

void cli_table_close(cli_table *t)
{
    for (int64_t i = 0; i < t->cell_count; i++) free(t->cells[i]);
    free(t->cells);
}

void cli_heading(const char *label, tf_text text)
{
    const int64_t size = cli_text_size(text);
    char *const line = cli_printable(text.data, size < 64 * HEADING_WIDTH ? size : 64 * HEADING_WIDTH);

    width_limit(line, HEADING_WIDTH - (int)strlen(label));
    printf("%s%s\n", label, line);
    free(line);
}
