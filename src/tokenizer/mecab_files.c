/* What a MeCab dictionary must say for libmecab to be safe with it.
 *
 * libmecab maps sys.dic, unk.dic, matrix.bin and char.bin and follows the numbers in them without looking at the ends of the
 * files. Here every number that it follows is read once: sizes against the file's, each unit of the double arrays against
 * the array and the tokens, each token's context ids against the matrix and its feature against the text, each class of a
 * character against the classes, each class's name against unk.dic. Of dicrc, which is text, a user dictionary is refused: it
 * would be another file that nobody has looked at. Numbers in the files are little-endian, as libmecab reads them on the
 * machines it is built for here. */
#include <string.h>

#include "base/status.h"
#include "tokenizer/mecab.h"

enum {
    MAGIC = 0x718f77, /* and 0xef above it */
    DICTIONARY_VERSION = 102,
    HEADER_BYTES = 72,
    TOKEN_BYTES = 16,
    UNIT_BYTES = 8,
    LABELS = 257, /* of a node of the double array: each byte and the end */
    CLASS_NAME_BYTES = 32,
    CLASS_CODES = 0xffff, /* code points that char.bin has */
    CLASSES_MAX = 18      /* bits of a code point's mask */
};

typedef struct matrix_size {
    uint32_t left, right;
} matrix_size;

static uint32_t read16(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8;
}

static uint32_t read32(const uint8_t *at)
{
    return read16(at) | read16(at + 2) << 16;
}

static tf_status corrupt(const char *folder, const char *name, const char *what)
{
    return tfi_fail(TF_STATUS_CORRUPT, "%s/%s: %s", folder, name, what);
}

/* A dictionary's parts. */
typedef struct parts {
    const uint8_t *units, *tokens, *features;
    uint32_t unit_count, token_count, feature_size;
} parts;

static const char *find_parts(const tfi_file *file, const matrix_size *matrix, parts *out)
{
    const uint8_t *d = file->data;

    if (file->size < HEADER_BYTES || file->size > UINT32_MAX) return "it is no dictionary";
    if ((read32(d) ^ (uint32_t)file->size) != (0xef000000u | MAGIC)) return "its size is not what it says";
    if (read32(d + 4) != DICTIONARY_VERSION) return "it is of another version than 102";
    if (read32(d + 16) != matrix->left || read32(d + 20) != matrix->right) return "it does not go with matrix.bin";
    const uint64_t units = read32(d + 24), tokens = read32(d + 28), features = read32(d + 32);
    if (HEADER_BYTES + units + tokens + features != file->size) return "its parts do not fill it";
    if (units % UNIT_BYTES != 0 || tokens % TOKEN_BYTES != 0) return "a part has no whole number of members";
    if (units < LABELS * UNIT_BYTES || features == 0) return "a part is empty";
    if (!memchr(d + 40, 0, 32)) return "its charset has no end";
    *out = (parts){.units = d + HEADER_BYTES,
                   .tokens = d + HEADER_BYTES + units,
                   .features = d + HEADER_BYTES + units + tokens,
                   .unit_count = (uint32_t)(units / UNIT_BYTES),
                   .token_count = (uint32_t)(tokens / TOKEN_BYTES),
                   .feature_size = (uint32_t)features};
    return out->features[features - 1] == 0 ? NULL : "its features have no end";
}

/* A unit: where its node's children begin, or, below zero, a first token with a number of tokens; and whose child it is. */
static const char *check_units(const parts *p)
{
    for (uint32_t i = 0; i < p->unit_count; i++) {
        const int32_t base = (int32_t)read32(p->units + UNIT_BYTES * (size_t)i);
        if (base >= 0) {
            if ((uint32_t)base > p->unit_count - LABELS) return "its double array leads outside";
        } else {
            const uint32_t value = ~(uint32_t)base;
            if ((value >> 8) + (value & 255) > p->token_count) return "its double array leads to no token";
        }
    }
    return NULL;
}

static const char *check_tokens(const parts *p, const matrix_size *matrix)
{
    for (uint32_t i = 0; i < p->token_count; i++) {
        const uint8_t *token = p->tokens + TOKEN_BYTES * (size_t)i;
        if (read16(token) >= matrix->right || read16(token + 2) >= matrix->left)
            return "a token has a context outside matrix.bin";
        if (read32(token + 8) >= p->feature_size) return "a token has no feature";
    }
    return NULL;
}

/* Does the double array hold `key` with tokens? As libmecab looks for it. */
static int has_key(const parts *p, const uint8_t *key, size_t size)
{
    uint32_t base = read32(p->units);

    for (size_t i = 0; i < size; i++) {
        if ((int32_t)base < 0) return 0;
        const uint8_t *unit = p->units + UNIT_BYTES * (size_t)(base + key[i] + 1);
        if (read32(unit + 4) != base) return 0;
        base = read32(unit);
    }
    if ((int32_t)base < 0) return 0;
    const uint8_t *unit = p->units + UNIT_BYTES * (size_t)base;
    return read32(unit + 4) == base && (int32_t)read32(unit) < 0 && (~read32(unit) & 255) > 0;
}

static const char *check_dictionary(const tfi_file *file, const matrix_size *matrix, parts *p)
{
    const char *wrong = find_parts(file, matrix, p);

    if (!wrong) wrong = check_units(p);
    return wrong ? wrong : check_tokens(p, matrix);
}

static const char *check_matrix(const tfi_file *file, matrix_size *out)
{
    if (file->size < 4) return "it is cut off";
    *out = (matrix_size){.left = read16(file->data), .right = read16(file->data + 2)};
    if (out->left == 0 || out->right == 0) return "it has no context";
    return file->size == 4 + 2 * (uint64_t)out->left * out->right ? NULL : "its size is not what it says";
}

/* Classes of characters and their names, which unk.dic must have; the first 32 bits: mask 18, default class 8, length 4, flags 2. */
static const char *check_classes(const tfi_file *file, const parts *unknown)
{
    const uint32_t count = file->size >= 4 ? read32(file->data) : 0;
    const uint8_t *at = file->data + 4;

    if (count == 0 || count > CLASSES_MAX) return "it has no number of classes that could be";
    if (file->size != 4 + (size_t)count * CLASS_NAME_BYTES + 4 * (size_t)CLASS_CODES) return "its size is not what it says";
    for (uint32_t i = 0; i < count; i++, at += CLASS_NAME_BYTES) {
        const uint8_t *end = memchr(at, 0, CLASS_NAME_BYTES);
        if (!end) return "a class's name has no end";
        if (!has_key(unknown, at, (size_t)(end - at))) return "unk.dic lacks a class";
    }
    for (uint32_t i = 0; i < CLASS_CODES; i++, at += 4)
        if ((read32(at) >> 18 & 255) >= count) return "a character is of a class that is not there";
    return NULL;
}

static int is_key(const uint8_t *line, size_t size, const char *key)
{
    while (size > 0 && (*line == ' ' || *line == '\t')) line++, size--;
    return size >= strlen(key) && memcmp(line, key, strlen(key)) == 0;
}

static tf_status check_settings(const char *folder, const tfi_file *file)
{
    for (size_t at = 0; at < file->size;) {
        const uint8_t *end = memchr(file->data + at, '\n', file->size - at);
        const size_t size = end ? (size_t)(end - file->data) - at : file->size - at;
        if (is_key(file->data + at, size, "userdic"))
            return tfi_fail(TF_STATUS_UNSUPPORTED, "%s/dicrc: a user dictionary is not supported", folder);
        if (is_key(file->data + at, size, "dicdir"))
            return tfi_fail(TF_STATUS_UNSUPPORTED, "%s/dicrc: it names another folder, which is not supported", folder);
        at += size + 1;
    }
    return TF_STATUS_OK;
}

enum { MATRIX, SYSTEM, UNKNOWN, CLASSES, SETTINGS, FILES };

static tf_status check_files(const char *folder, const tfi_file files[FILES], const char *const names[FILES])
{
    matrix_size matrix;
    parts system, unknown;
    const char *wrong;

    if ((wrong = check_matrix(&files[MATRIX], &matrix)) != NULL) return corrupt(folder, names[MATRIX], wrong);
    if ((wrong = check_dictionary(&files[SYSTEM], &matrix, &system)) != NULL) return corrupt(folder, names[SYSTEM], wrong);
    if ((wrong = check_dictionary(&files[UNKNOWN], &matrix, &unknown)) != NULL) return corrupt(folder, names[UNKNOWN], wrong);
    if (strncmp((const char *)files[SYSTEM].data + 40, "utf", 3) != 0 &&
        strncmp((const char *)files[SYSTEM].data + 40, "UTF", 3) != 0)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: a dictionary in another charset than UTF-8 is not supported", folder);
    if ((wrong = check_classes(&files[CLASSES], &unknown)) != NULL) return corrupt(folder, names[CLASSES], wrong);
    return check_settings(folder, &files[SETTINGS]);
}

tf_status tfi_mecab_check(const tfi_files *files)
{
    static const char *const names[FILES] = {"matrix.bin", "sys.dic", "unk.dic", "char.bin", "dicrc"};
    tfi_file held[FILES] = {{0}};
    tf_status status = TF_STATUS_OK;

    for (int i = 0; i < FILES && status == TF_STATUS_OK; i++) status = tfi_files_need(files, names[i], &held[i]);
    if (status == TF_STATUS_OK) status = check_files(files->label, held, names);
    for (int i = 0; i < FILES; i++)
        if (held[i].data) tfi_files_close(files, &held[i]);
    return status;
}
