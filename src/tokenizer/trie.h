/* A set of byte strings with a number each, walked byte by byte: the vocabulary, the added tokens.
 * All edges are in one open-addressing table keyed by (node, byte), so that building needs no sorting and a step is one probe.
 */
#ifndef TFI_TOKENIZER_TRIE_H
#define TFI_TOKENIZER_TRIE_H

#include <stdint.h>

#include "base/memory.h"

enum { TFI_TRIE_ROOT = 0, TFI_TRIE_NONE = -1 };

typedef struct tfi_trie_edge {
    uint32_t key;   /* node << 8 | byte, or TFI_TRIE_FREE */
    uint32_t child; /* 0, the root, is nobody's child: a walk ends there */
} tfi_trie_edge;

#define TFI_TRIE_FREE UINT32_MAX

typedef struct tfi_trie {
    tfi_memory *memory;
    tfi_trie_edge *edges;
    int32_t *values;      /* [nodes] the number of the string that ends here, or TFI_TRIE_NONE */
    uint32_t mask, shift; /* slots - 1; 32 - log2(slots) */
    uint32_t nodes, node_capacity;
} tfi_trie;

/* An empty set with room for about `nodes` nodes. OK or NOMEM; close a trie that failed, too. */
tf_status tfi_trie_open(tfi_trie *t, tfi_memory *memory, uint32_t nodes);
void tfi_trie_close(tfi_trie *t);

/* Add `text` and point *value at its number: TFI_TRIE_NONE if it is new. Valid until the next call. OK, NOMEM, UNSUPPORTED
 * (size). */
tf_status tfi_trie_add(tfi_trie *t, const uint8_t *text, size_t size, int32_t **value);

/* The child of `node` along `byte`, or 0. */
static inline uint32_t tfi_trie_step(const tfi_trie *t, uint32_t node, uint8_t byte)
{
    const uint32_t key = node << 8 | byte;
    uint32_t slot = key * 0x9e3779b1u >> t->shift;

    while (t->edges[slot].key != key) {
        if (t->edges[slot].key == TFI_TRIE_FREE) return 0;
        slot = (slot + 1) & t->mask;
    }
    return t->edges[slot].child;
}

/* The node of a string, or 0 if no member begins with it (or it is empty). */
uint32_t tfi_trie_walk(const tfi_trie *t, const uint8_t *text, size_t size);

/* The number of a string, or TFI_TRIE_NONE. */
int32_t tfi_trie_find(const tfi_trie *t, const uint8_t *text, size_t size);

/* The longest member that `text` begins with, walking from `node`; *size gets its bytes. Its number, or TFI_TRIE_NONE. */
static inline int32_t tfi_trie_longest(const tfi_trie *t, uint32_t node, const uint8_t *text, uint32_t limit, uint32_t *size)
{
    int32_t best = TFI_TRIE_NONE;

    for (uint32_t i = 0; i < limit; i++) {
        if (!(node = tfi_trie_step(t, node, text[i]))) break;
        if (t->values[node] != TFI_TRIE_NONE) {
            best = t->values[node];
            *size = i + 1;
        }
    }
    return best;
}

#endif
