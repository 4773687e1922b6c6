/* SentencePiece's precompiled character map: a double-array trie whose values point into a text of replacements. */
#ifndef TFI_TOKENIZER_CHARSMAP_H
#define TFI_TOKENIZER_CHARSMAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"

typedef struct tfi_charsmap {
    const uint32_t *units; /* NULL: maps nothing */
    uint32_t unit_count;
    const uint8_t *text; /* valid UTF-8, each replacement ends at a NUL or at the end */
    uint32_t text_size;
} tfi_charsmap;

/* Copy a map into the arena. An empty one maps nothing. OK, CORRUPT (with `name` and what is wrong) or NOMEM. */
tf_status tfi_charsmap_open(tfi_charsmap *m, tfi_arena *arena, const uint8_t *data, size_t size, const char *name);

/* The replacement of the shortest, or with `longest` of the longest, member that `text` begins with; *matched gets its bytes.
 * NULL if there is none. */
const uint8_t *tfi_charsmap_find(const tfi_charsmap *m, const uint8_t *text, size_t size, int longest, size_t *matched,
                                 uint32_t *replacement_size);

/* Does some member begin with `text` and go on with a code point below 0x10000? Those that it goes on with are marked in `set`,
 * which has a byte for each. -1 if finding them takes more than *steps, which are counted down. */
int tfi_charsmap_seconds(const tfi_charsmap *m, const uint8_t *text, size_t size, uint8_t *set, uint32_t *steps);

#endif
