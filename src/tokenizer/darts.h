/* A set of byte strings for walking alone: what a tfi_trie holds, as a double array. A step is one read of eight bytes, and
 * children of a node lie within one kilobyte of each other. */
#ifndef TFI_TOKENIZER_DARTS_H
#define TFI_TOKENIZER_DARTS_H

#include "tokenizer/trie.h"

typedef struct tfi_dart {
    uint32_t base; /* this node's children: at base ^ byte */
    uint32_t tag;  /* the byte that leads here, and above it the string's number and 1, or 0 */
} tfi_dart;

typedef struct tfi_darts {
    tfi_memory *memory;
    tfi_dart *units;
    uint32_t unit_count, capacity;
    uint32_t root; /* base of the empty string */
} tfi_darts;

/* Make it of `from`, whose numbers are below TFI_TOKEN_ID_MAX. OK or NOMEM; close one that failed, too. */
tf_status tfi_darts_open(tfi_darts *d, tfi_memory *memory, const tfi_trie *from);
void tfi_darts_close(tfi_darts *d);

/* Go on from `base` (d->root at first) along `byte`: 1, with the new base and the number there (TFI_TRIE_NONE if no string ends), or
 * 0 if no string goes on so. */
static inline int tfi_darts_step(const tfi_darts *d, uint32_t *base, uint8_t byte, int32_t *number)
{
    const tfi_dart unit = d->units[*base ^ byte];

    if ((uint8_t)unit.tag != byte) return 0;
    *base = unit.base;
    *number = (int32_t)(unit.tag >> 8) - 1;
    return 1;
}

#endif
