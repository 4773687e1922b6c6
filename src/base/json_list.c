#include "base/json_list.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/status.h"

/* Finding the list. Nothing is judged here: what is malformed comes out wrong in the tree's parser, or in the list's reader. */

static const char *skip_spaces(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) p++;
    return p;
}

/* Behind the string that begins at `p`. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\') p++;
    return p < end ? p + 1 : end;
}

/* From inside an object, behind its bracket or a member: *p goes on to the value of the next member that has one of the names. The name's
 * number, or -1: there is none. */
static int next_member(const char **p, const char *end, const char *const *names, int count)
{
    const char *at = *p;

    for (int depth = 1; at < end; at++) {
        if (*at == '"') {
            const char *begin = at + 1, *behind = skip_string(at, end), *colon = skip_spaces(behind, end);
            const size_t size = (size_t)(behind - begin) - 1;
            for (int i = 0; i < count && depth == 1 && colon < end && *colon == ':'; i++) {
                if (strlen(names[i]) != size || memcmp(begin, names[i], size) != 0) continue;
                *p = skip_spaces(colon + 1, end);
                return i;
            }
            at = behind - 1;
        } else if (*at == '{' || *at == '[') {
            depth++;
        } else if ((*at == '}' || *at == ']') && --depth == 0) {
            break;
        }
    }
    return -1;
}

/* The bracket that closes the one at `p`, or `end`. */
static const char *list_end(const char *p, const char *end)
{
    for (int depth = 0; p < end; p++) {
        if (*p == '"') p = skip_string(p, end) - 1;
        else if (*p == '{' || *p == '[') depth++;
        else if ((*p == '}' || *p == ']') && --depth == 0) return p;
    }
    return end;
}

/* The array or object at *p, if it is one that ends; then *p goes behind it. */
static void take_list(const char **p, const char *end, tfi_json_list *list)
{
    const char *begin = *p, *close;

    if (list->begin || begin == end || (*begin != '{' && *begin != '[') || (close = list_end(begin, end)) == end) return;
    *list = (tfi_json_list){.begin = begin + 1, .end = close, .at = begin + 1, .is_object = *begin == '{'};
    *p = close + 1;
}

static void find_lists(const char *data, size_t size, const char *outer, const char *const *inner, int count,
                       tfi_json_list *lists)
{
    const char *end = data + size, *p = skip_spaces(data, end);

    memset(lists, 0, (size_t)count * sizeof *lists);
    if (p == end || *p != '{') return;
    if (!outer) {
        take_list(&p, end, lists);
        return;
    }
    p++;
    if (next_member(&p, end, &outer, 1) < 0 || p == end || *p != '{') return;
    p++;
    for (int i; (i = next_member(&p, end, inner, count)) >= 0;) take_list(&p, end, &lists[i]);
}

/* The text without what is in the lists, to `out`, which has room for all of it; its size. */
static size_t copy_around(const char *data, size_t size, const tfi_json_list *lists, int count, char *out)
{
    const char *from = data, *to;
    size_t copied = 0;

    do {
        const tfi_json_list *next = NULL;
        for (int i = 0; i < count; i++)
            if (lists[i].begin && lists[i].begin > from && (!next || lists[i].begin < next->begin)) next = &lists[i];
        to = next ? next->begin : data + size;
        memcpy(out + copied, from, (size_t)(to - from));
        copied += (size_t)(to - from);
        from = next ? next->end : to;
    } while (to < data + size);
    return copied;
}

tf_status tfi_json_parse_around(const char *data, size_t size, const char *file, const char *outer, const char *const *inner,
                                int count, tfi_memory *memory, json_t **out, tfi_json_list *lists)
{
    size_t rest_size = size;

    *out = NULL;
    find_lists(data, size, outer, inner, count, lists);
    for (int i = 0; i < count; i++)
        if (lists[i].begin) rest_size -= (size_t)(lists[i].end - lists[i].begin);
    if (rest_size == size) return tfi_json_parse(data, size, file, out);
    char *rest = tfi_alloc(memory, rest_size);
    if (!rest) return TF_STATUS_NOMEM;
    tf_status status = tfi_json_parse(rest, copy_around(data, size, lists, count, rest), file, out);
    tfi_free(memory, rest, rest_size);
    /* Once more for the right line in the error's text. */
    if (status == TF_STATUS_CORRUPT && (status = tfi_json_parse(data, size, file, out)) == TF_STATUS_OK)
        memset(lists, 0, (size_t)count * sizeof *lists);
    return status;
}

/* Reading it. */

size_t tfi_json_list_bound(const tfi_json_list *list)
{
    const char *first = skip_spaces(list->begin, list->end);
    const int are_texts = !list->is_object && first < list->end && *first == '"';
    const char mark = list->is_object ? ':' : are_texts ? '"' : '[';
    size_t count = 0;

    for (const char *p = list->begin; (p = memchr(p, mark, (size_t)(list->end - p))) != NULL; p++) count++;
    return are_texts ? count / 2 : count;
}

/* Behind the number at `p`, or NULL if it is not written as JSON has it. */
static const char *read_number(const char *p, const char *end)
{
    if (p < end && *p == '-') p++;
    const char *digits = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    if (p == digits || (*digits == '0' && p > digits + 1)) return NULL;
    if (p < end && *p == '.') {
        digits = ++p;
        while (p < end && *p >= '0' && *p <= '9') p++;
        if (p == digits) return NULL;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        digits = p;
        while (p < end && *p >= '0' && *p <= '9') p++;
        if (p == digits) return NULL;
    }
    return p;
}

/* Behind the string at `p`, or NULL. */
static const char *read_string(const char *p, const char *end, tfi_json_text *out)
{
    if (p == end || *p != '"') return NULL;
    *out = (tfi_json_text){.data = ++p};
    for (; p < end && *p != '"'; p++) {
        if ((unsigned char)*p < 0x20) return NULL;
        if (*p != '\\') continue;
        out->has_escapes = 1;
        if (++p == end) return NULL;
    }
    if (p == end) return NULL;
    out->size = (size_t)(p - out->data);
    return p + 1;
}

static const char *read_mark(const char *p, const char *end, char mark)
{
    p = skip_spaces(p, end);
    return p < end && *p == mark ? skip_spaces(p + 1, end) : NULL;
}

int tfi_json_list_pair(tfi_json_list *list, tfi_json_pair *out)
{
    const char *p = skip_spaces(list->at, list->end), *const end = list->end;

    *out = (tfi_json_pair){0};
    if (p == end) return 0;
    if (list->is_begun && !(p = read_mark(p, end, ','))) return -1;
    if (!list->is_object && !(p = read_mark(p, end, '['))) return -1;
    if (!(p = read_string(p, end, &out->text)) || !(p = read_mark(p, end, list->is_object ? ':' : ','))) return -1;
    out->number = p;
    if (!(p = read_number(p, end))) return -1;
    out->number_size = (size_t)(p - out->number);
    if (!list->is_object && !(p = read_mark(p, end, ']'))) return -1;
    list->at = p;
    list->is_begun = 1;
    return 1;
}

int tfi_json_list_texts(tfi_json_list *list, tfi_json_text out[2])
{
    const char *p = skip_spaces(list->at, list->end), *const end = list->end;

    if (p == end) return 0;
    if (list->is_begun && !(p = read_mark(p, end, ','))) return -1;
    const int is_pair = p < end && *p == '[';
    if (is_pair) p = skip_spaces(p + 1, end);
    if (!(p = read_string(p, end, &out[0]))) return -1;
    if (is_pair && (!(p = read_mark(p, end, ',')) || !(p = read_string(p, end, &out[1])) || !(p = read_mark(p, end, ']'))))
        return -1;
    list->at = p;
    list->is_begun = 1;
    return 1 + is_pair;
}

static int hex4(const char *p, const char *end, uint32_t *out)
{
    *out = 0;
    if (end - p < 4) return 0;
    for (int i = 0; i < 4; i++) {
        const char c = p[i];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return 0;
        *out = *out << 4 | (uint32_t)digit;
    }
    return 1;
}

static size_t encode(uint32_t c, char *out)
{
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 63)), out[2] = (char)(0x80 | (c & 63)), 3;
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* The code point that the text behind "\u" at *p means, which may be written as two; *p goes behind it. */
static int unescape_point(const char **p, const char *end, uint32_t *c)
{
    uint32_t low;

    if (!hex4(*p, end, c)) return 0;
    *p += 4;
    if (*c < 0xd800 || *c > 0xdfff) return 1;
    if (*c > 0xdbff || end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u' || !hex4(*p + 2, end, &low) || low < 0xdc00 ||
        low > 0xdfff)
        return 0;
    *p += 6;
    *c = 0x10000 + ((*c - 0xd800) << 10 | (low - 0xdc00));
    return 1;
}

int64_t tfi_json_unescape(const tfi_json_text *text, char *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *p = text->data, *end = p + text->size;
    char *begin = out;
    uint32_t c;

    while (p < end) {
        if (*p != '\\') {
            *out++ = *p++;
            continue;
        }
        if (++p == end) return -1;
        if (*p == 'u') {
            p++;
            if (!unescape_point(&p, end, &c)) return -1;
            out += encode(c, out);
            continue;
        }
        const char *known = memchr(from, *p++, sizeof from - 1);
        if (!known) return -1;
        *out++ = to[known - from];
    }
    return out - begin;
}

/* Numbers. */

tfi_json_number tfi_json_number_read(const char *text, size_t size)
{
    const char *p = text, *end = text + size;
    tfi_json_number n = {.is_negative = *p == '-', .is_whole = 1};
    int32_t written = 0;
    int is_behind = 0, is_down = 0;

    for (p += n.is_negative; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            is_behind = 1;
            continue;
        }
        const uint64_t digit = (uint64_t)(*p - '0');
        if (n.digits > (UINT64_MAX - digit) / 10) n.is_whole = 0;
        if (n.is_whole) n.digits = n.digits * 10 + digit;
        n.exponent += n.is_whole ? -is_behind : !is_behind;
    }
    if (p < end) {
        p++;
        is_down = *p == '-';
        for (p += *p == '-' || *p == '+'; p < end; p++) written = written < 100000 ? written * 10 + (*p - '0') : written;
    }
    n.exponent += is_down ? -written : written;
    return n;
}

/* jansson reads it, in any locale. */
static double read_slowly(const char *text, size_t size)
{
    json_t *value = json_loadb(text, size, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
    const double number = json_number_value(value);

    json_decref(value);
    return number;
}

double tfi_json_number_nearest(const char *text, size_t size)
{
#if LDBL_MANT_DIG == 64
    /* 5^27 < 2^64: with 64 bits a quotient is rounded once, and its next rounding, to 53 bits, is the right one unless the 11 bits
     * that go are half a unit, or next to it. */
    static const long double powers[] = {1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,  1e7L,  1e8L,  1e9L,
                                         1e10L, 1e11L, 1e12L, 1e13L, 1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L,
                                         1e20L, 1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L};
    const tfi_json_number n = tfi_json_number_read(text, size);

    if (n.is_whole && n.exponent <= 0 && n.exponent >= -27) {
        const long double wide = (long double)n.digits / powers[-n.exponent];
        uint64_t mantissa;
        memcpy(&mantissa, &wide, sizeof mantissa);
        if ((mantissa & 2047) < 1023 || (mantissa & 2047) > 1025) return n.is_negative ? -(double)wide : (double)wide;
    }
#endif
    return read_slowly(text, size);
}
