/* The pieces of a Unigram vocabulary, walked code point by code point: a stem is what some piece begins with.
 *
 * The first step is one read of a table by code point. Each further one asks a word of 64 bits in the stem itself whether any piece
 * goes on so, which ends most searches without another read; the children of a stem lie within a kilobyte, as in a double array, each
 * at a place its code point says. A stem of more children than such places can tell apart has them in a hash table. */
#ifndef TFI_TOKENIZER_STEMS_H
#define TFI_TOKENIZER_STEMS_H

#include "base/memory.h"
#include "tokenizer/trie.h"

#define TFI_STEM_TABLE UINT32_MAX
enum {
    TFI_STEM_ROOT = 0, /* also: no stem */
    TFI_STEM_BITS = 24,
    TFI_STEMS_MAX = (1 << TFI_STEM_BITS) - 1,
    TFI_FIRST_COUNT = 0x10000,
    TFI_STEM_POINT = 0x1fffff,  /* mask of tfi_stem.point */
    TFI_STEM_PIECE = 1 << 21    /* a piece that texts are made of */
};

typedef struct tfi_stem {
    uint64_t next;  /* bit c % 64: some stem is this one and code point c */
    uint32_t base;  /* that stem is number base ^ c % 64, or in the table */
    uint32_t point; /* the last code point, with TFI_STEM_PIECE */
} tfi_stem;

typedef struct tfi_stem_slot {
    uint32_t from, c, to; /* to 0: free */
} tfi_stem_slot;

/* A piece while the set is made: a stem in the order of adding. */
typedef struct tfi_sprout {
    double score;
    uint32_t parent, c;
    int32_t id;        /* TFI_TRIE_NONE: no piece ends here */
    int32_t is_marker; /* texts are not made of it */
} tfi_sprout;

typedef struct tfi_stems {
    tfi_memory *memory;
    tfi_stem *stems; /* [count] once they are packed; and of the piece that each one is, */
    double *scores;  /* [count] its score */
    int32_t *ids;    /* [count] its id, or TFI_TRIE_NONE */
    uint32_t *first; /* [TFI_FIRST_COUNT] by code point: the stem that is it alone, or 0; above TFI_STEM_BITS the user's bits */
    tfi_stem_slot *slots; /* open addressing by parent and code point; all stems until they are packed */
    uint32_t mask, shift; /* slots - 1; 64 - log2(slots) */
    uint32_t count, capacity;
    tfi_sprout *sprouts; /* until they are packed */
    uint32_t sprout_count, sprout_capacity;
} tfi_stems;

/* An empty set with room for about `count` stems. OK or NOMEM; close one that failed, too. */
tf_status tfi_stems_open(tfi_stems *t, tfi_memory *memory, uint32_t count);
void tfi_stems_close(tfi_stems *t);

/* Add valid UTF-8, not empty; *sprout gets what is valid until the next call, its id TFI_TRIE_NONE if it is new. OK, NOMEM,
 * UNSUPPORTED (size). */
tf_status tfi_stems_add(tfi_stems *t, const uint8_t *text, size_t size, tfi_sprout **sprout);

/* After the last one: lay them out for walking. OK, NOMEM or UNSUPPORTED (size). */
tf_status tfi_stems_pack(tfi_stems *t);

/* The id of a string of any bytes, or TFI_TRIE_NONE. Needs a packed set, as do the steps. */
int32_t tfi_stems_find(const tfi_stems *t, const uint8_t *text, size_t size);

static inline uint32_t tfi_stems_look_up(const tfi_stems *t, uint32_t from, uint32_t c)
{
    uint32_t slot = (uint32_t)(((uint64_t)from << 21 | c) * 0x9e3779b97f4a7c15u >> t->shift);

    while (t->slots[slot].to && (t->slots[slot].from != from || t->slots[slot].c != c)) slot = (slot + 1) & t->mask;
    return t->slots[slot].to;
}

/* The stem that is `from` and a code point c, or 0. */
static inline uint32_t tfi_stems_step(const tfi_stems *t, uint32_t from, uint32_t c)
{
    const tfi_stem *k = &t->stems[from];

    if (!(k->next >> (c & 63) & 1)) return 0;
    if (k->base == TFI_STEM_TABLE) return tfi_stems_look_up(t, from, c);
    const uint32_t to = k->base ^ (c & 63);
    return (t->stems[to].point & TFI_STEM_POINT) == c ? to : 0;
}

/* The stem that is code point c alone, or 0. */
static inline uint32_t tfi_stems_first(const tfi_stems *t, uint32_t c)
{
    return c < TFI_FIRST_COUNT ? t->first[c] & TFI_STEMS_MAX : tfi_stems_look_up(t, TFI_STEM_ROOT, c);
}

#endif
