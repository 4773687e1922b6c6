/* Large arrays and objects inside a JSON text, read without a tree: pairs of a string and a number, as a vocabulary of 250,000
 * pieces has them, or strings, as its merges are. jansson makes the tree of everything around them. */
#ifndef TFI_BASE_JSON_LIST_H
#define TFI_BASE_JSON_LIST_H

#include "base/json.h"
#include "base/memory.h"

/* The text between the brackets of an array or, is_object, an object; begin NULL: there is none. */
typedef struct tfi_json_list {
    const char *begin, *end;
    const char *at; /* behind the last member read */
    int is_begun, is_object;
} tfi_json_list;

/* As tfi_json_parse, but where one of root[outer][inner[0]], ... root[outer][inner[count - 1]] is an array or an object it is left out,
 * empty in the tree, and its list points at it in `data`. outer NULL: the one list is the root itself. */
tf_status tfi_json_parse_around(const char *data, size_t size, const char *file, const char *outer, const char *const *inner,
                                int count, tfi_memory *memory, json_t **out, tfi_json_list *lists);

/* A string without its quotes, with its escapes (has_escapes says whether there are any). */
typedef struct tfi_json_text {
    const char *data;
    size_t size;
    int has_escapes;
} tfi_json_text;

/* A number goes with it, as it is written. */
typedef struct tfi_json_pair {
    tfi_json_text text;
    const char *number;
    size_t number_size;
} tfi_json_pair;

/* A number of members that the list has at most, and mostly has, if all are of one kind. */
size_t tfi_json_list_bound(const tfi_json_list *list);

/* The next member of [["text", number], ...] or {"text": number, ...}. 1, or 0: there is none left; -1: what comes is no such pair, and
 * *out has the string or nothing. */
int tfi_json_list_pair(tfi_json_list *list, tfi_json_pair *out);

/* The next member of ["text", ...] or [["text", "text"], ...]: how many strings it is. 0: there is none left; -1: what comes is neither. */
int tfi_json_list_texts(tfi_json_list *list, tfi_json_text out[2]);

/* Write what a string with escapes stands for, at most text->size bytes of UTF-8, to `out`; its size, or -1 if an escape is wrong. */
int64_t tfi_json_unescape(const tfi_json_text *text, char *out);

/* A number's text as digits * 10^exponent; digits beyond the 19th or 20th, which no 64 bits hold, are left out as serde_json does it:
 * *is_whole says that none were. */
typedef struct tfi_json_number {
    uint64_t digits;
    int32_t exponent;
    int is_negative, is_whole;
} tfi_json_number;

tfi_json_number tfi_json_number_read(const char *text, size_t size);

/* The double nearest to a number's text. */
double tfi_json_number_nearest(const char *text, size_t size);

#endif
