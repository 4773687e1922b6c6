/* What the tests of the tokenizer share: folders of files, the tokens of a text, refusals, every allocation failing once. */
#ifndef TFC_TOKENIZING_H
#define TFC_TOKENIZING_H

#include <tfinfer/tokenizer.h>

#include "../check.h"

/* A folder of the test's scratch folder with files given as name, text, name, text. */
const char *write_files(const char *name, const char *const *files);
#define DIR(name, ...) write_files(name, (const char *const[]){__VA_ARGS__, NULL})
/* A file by itself. */
const char *write_text(const char *name, const char *text);

/* What an encoding holds. */
tf_encoding_data view(const tf_encoding *e);
/* Encode one text, or a pair, as the tokenizer does it by itself. */
tf_encoding_data encode(const tf_tokenizer *t, tf_encoding *e, const char *text, const char *pair);

/* The ids of a row, of an only row, and those of a text. */
void check_ids(tf_encoding_data d, int64_t row, const int32_t *ids, int64_t n);
#define CHECK_NUMBERS(check, a, b, ...)                                                                                        \
    check(a, b, (const int32_t[]){__VA_ARGS__}, (int64_t)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)))
#define ROW_IDS(d, row, ...) CHECK_NUMBERS(check_ids, d, row, __VA_ARGS__)
#define IDS(d, ...) CHECK_NUMBERS(check_ids, d, 0, __VA_ARGS__)
void check_text_ids(const tf_tokenizer *t, const char *text, const int32_t *ids, int64_t n);
#define TEXT_IDS(t, text, ...) CHECK_NUMBERS(check_text_ids, t, text, __VA_ARGS__)

/* Opening `path` must give `status`, no handle and a message that holds `part`. */
void refuse(const char *path, tf_status status, const char *part);

/* Open `path`, encode a text whole and the same text repaired in windows, decode the ids 0 to ids - 1 at once and one by one; with
 * allocation 1, 2, ... failing until none does. */
void fail_each_allocation(const char *path, const char *text, int32_t ids);

/* A .model file while it is written: numbers and bytes by field, and whole pieces of a type (1: one that texts are made of). */
typedef struct writer {
    uint8_t data[4096];
    size_t size;
} writer;
void put_number(writer *w, uint32_t field, uint64_t value);
void put_bytes(writer *w, uint32_t field, const void *data, size_t size);
void put_piece(writer *w, const char *text, float score, int type);

#endif
