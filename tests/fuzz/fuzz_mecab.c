/* A small MeCab dictionary that is whole, with bytes changed as the input says: four bytes a change: a file, a place in it and the new
 * byte. What the checks let pass is walked with the rest of the input as libmecab walks it, which looks at no file's end. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "driver/held_files.h"
#include "tokenizer/mecab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { UNITS = 600, TOKENS = 2, CONTEXTS = 2, FEATURES = 8, HEADER = 72, CODES = 0xffff };
enum {
    DICTIONARY = HEADER + UNITS * 8 + TOKENS * 16 + FEATURES,
    MATRIX = 4 + 2 * CONTEXTS * CONTEXTS,
    CLASSES = 4 + 32 + 4 * CODES
};

static void put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* One key, the letter D, which is the name of the only class, too. */
static void make_dictionary(uint8_t *d)
{
    const uint32_t header[9] = {DICTIONARY ^ 0xef718f77u, 102, 0, TOKENS, CONTEXTS, CONTEXTS, UNITS * 8, TOKENS * 16, FEATURES};
    uint8_t *units = d + HEADER, *tokens = units + UNITS * 8;

    memset(d, 0, DICTIONARY);
    for (int i = 0; i < 9; i++) put32(d + 4 * i, header[i]);
    memcpy(d + 40, "utf8", 4);
    put32(units, 1);                       /* the root's children: from 1 on */
    put32(units + 8 * (1 + 'D' + 1), 200); /* D: its own end at 200 */
    put32(units + 8 * (1 + 'D' + 1) + 4, 1);
    put32(units + 8 * 200, ~(uint32_t)(0 << 8 | 1)); /* token 0, one of them */
    put32(units + 8 * 200 + 4, 200);
    memcpy(tokens + TOKENS * 16, "a\0b\0c\0d", FEATURES);
}

/* Every token that some prefix of `text` has, as libmecab reads them. */
static unsigned walk(const uint8_t *d, const uint8_t *text, size_t size)
{
    const uint8_t *units = d + HEADER, *tokens = units + get32(d + 24), *features = tokens + get32(d + 28);
    uint32_t base = get32(units);
    unsigned sum = 0;

    for (size_t i = 0; i <= size; i++) {
        const uint8_t *end = units + 8 * (size_t)base;
        if ((int32_t)base < 0) break;
        if (get32(end + 4) == base && (int32_t)get32(end) < 0) {
            const uint32_t value = ~get32(end);
            for (uint32_t k = 0; k < (value & 255); k++) {
                const uint8_t *token = tokens + 16 * (size_t)((value >> 8) + k);
                sum += (unsigned)strlen((const char *)features + get32(token + 8)) + token[0];
            }
        }
        if (i == size) break;
        const uint8_t *unit = units + 8 * ((size_t)base + text[i] + 1);
        if (get32(unit + 4) != base) break;
        base = get32(unit);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char settings[] = "cost-factor = 800\n";
    static const char *const names[HELD_FILES] = {"sys.dic", "unk.dic", "matrix.bin", "char.bin", "dicrc"};
    const size_t sizes[HELD_FILES] = {DICTIONARY, DICTIONARY, MATRIX, CLASSES, sizeof settings - 1};
    tfi_files files = {.source = {.file = open_held}, .label = "fuzz"};
    uint8_t *copies[HELD_FILES];
    static volatile unsigned sum;

    for (int i = 0; i < HELD_FILES; i++) {
        if (!(copies[i] = calloc(1, sizes[i]))) abort();
        held[i].name = names[i];
        held[i].data = copies[i];
        held[i].size = sizes[i];
    }
    make_dictionary(copies[0]);
    make_dictionary(copies[1]);
    copies[2][0] = copies[2][2] = CONTEXTS;
    copies[3][0] = 1;
    copies[3][4] = 'D';
    memcpy(copies[4], settings, sizeof settings - 1);
    if (tfi_mecab_check(&files) != TF_STATUS_OK) abort();
    for (; size >= 4 && data[0] < 250; data += 4, size -= 4) {
        const int file = data[0] % HELD_FILES;
        copies[file][(data[1] | (size_t)data[2] << 8) % sizes[file]] = data[3];
    }
    if (tfi_mecab_check(&files) == TF_STATUS_OK) sum = walk(copies[0], data, size) + walk(copies[1], data, size);
    (void)sum;
    for (int i = 0; i < HELD_FILES; i++) free(copies[i]);
    return 0;
}
