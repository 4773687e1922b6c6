/* The pieces of a Unigram vocabulary, walked code point by code point: a stem is what some piece begins with.
 *
 * The first step is one read of a table by code point, each further one a read of the sixteen bytes that hold all that is known
 * of a stem. Bits in the stem before say of most code points that no piece goes on so, which ends most searches without that
 * read. The children of a stem lie within four kilobytes, as in a double array, each at a place its code point says; the second
 * child for a place is in a hash table. */
#ifndef TFI_TOKENIZER_STEMS_H
#include <stdio.h>
#define TFI_TOKENIZER_STEMS_H

#include "base/memory.h"
#include "tokenizer/trie.h"

enum {
    TFI_STEM_ROOT = 0, /* also: no stem */
    TFI_STEM_BITS = 24,
    TFI_STEMS_MAX = (1 << TFI_STEM_BITS) - 1,
    TFI_FIRST_COUNT = 0x10000,
    /* Of tfi_stem.bits: */
    TFI_STEM_POINT = 0x1fffff, /* the stem's last code point */
    TFI_STEM_PIECE = 1 << 21,  /* is a piece that texts are made of */
    TFI_STEM_BASE = 22,        /* from this bit on: child c has number base ^ c % 256, */
    TFI_STEM_NEXT = 46         /* and, from this bit on, bit c % 16 is set */
};
#define TFI_POINT_END 0x1ffffeu           /* no code point, and none that a stem ends with */
#define TFI_STEM_MORE ((uint64_t)1 << 62) /* some children are in the table instead */

typedef struct tfi_stem {
    uint64_t bits;
    float score; /* of the piece that is this stem, or -INFINITY; where scores are floats: SentencePiece's always are */
    int32_t id;  /* of that piece, or TFI_TRIE_NONE */
} tfi_stem;

typedef struct tfi_stem_slot {
    uint32_t from, c, to; /* to 0: free */
} tfi_stem_slot;

/* A piece while the set is made: a stem in the order of adding. */
typedef struct tfi_sprout {
    uint32_t parent, c : 21, is_marker : 1; /* is_marker: texts are not made of it */
    int32_t id;                             /* TFI_TRIE_NONE: no piece ends here */
    uint32_t hash;                          /* of its text */
} tfi_sprout;

typedef struct tfi_stems {
    tfi_memory *memory;
    tfi_stem *stems; /* [count] once they are packed */
    double *scores;  /* [count] where they are not; else NULL */
    uint32_t *first; /* [TFI_FIRST_COUNT] by code point: the stem that is it alone, or 0; above TFI_STEM_BITS the user's bits */
    tfi_stem_slot *slots; /* open addressing by parent and code point: where no other way leads there; while sprouts are added,
                           * of all, by the hash of their text */
    uint32_t mask, shift; /* slots - 1; 64 - log2(slots) */
    uint32_t count, longest; /* code points of the longest one */
    tfi_sprout *sprouts;     /* until they are packed */
    uint32_t sprout_count, sprout_capacity;
} tfi_stems;

/* An empty set with room for about `count` stems. OK or NOMEM; close one that failed, too. */
tf_status tfi_stems_open(tfi_stems *t, tfi_memory *memory, uint32_t count);
void tfi_stems_close(tfi_stems *t);

/* Add valid UTF-8, not empty; *sprout gets what is valid until the next call, its id TFI_TRIE_NONE if it is new. OK, NOMEM,
 * UNSUPPORTED (size). */
tf_status tfi_stems_add(tfi_stems *t, const uint8_t *text, size_t size, tfi_sprout **sprout);

/* After the last one: lay them out for walking, with the scores by id. OK, NOMEM or UNSUPPORTED (size). */
tf_status tfi_stems_pack(tfi_stems *t, const double *scores);

/* The id of a string of any bytes, or TFI_TRIE_NONE. Needs a packed set, as do the steps. */
int32_t tfi_stems_find(const tfi_stems *t, const uint8_t *text, size_t size);

static inline uint32_t tfi_stems_slot(const tfi_stems *t, uint32_t from, uint32_t c)
{
    return (uint32_t)(((uint64_t)from << 21 | c) * 0x9e3779b97f4a7c15u >> t->shift);
}

static inline uint32_t tfi_stems_look_up(const tfi_stems *t, uint32_t from, uint32_t c)
{
    uint32_t slot = tfi_stems_slot(t, from, c);

    while (t->slots[slot].to && (t->slots[slot].from != from || t->slots[slot].c != c)) slot = (slot + 1) & t->mask;
    return t->slots[slot].to;
}

/* Of a stem's bits: may a piece go on with c? And if so, the place of that child, unless it is in the table. */
static inline int tfi_stem_may_go_on(uint64_t bits, uint32_t c)
{
    return (int)(bits >> (TFI_STEM_NEXT + (c & 15)) & 1);
}

static inline uint32_t tfi_stem_child(uint64_t bits, uint32_t c)
{
    return (bits >> TFI_STEM_BASE & TFI_STEMS_MAX) ^ (c & 255);
}

/* The stem that is `from` and a code point c, or 0. */
static inline uint32_t tfi_stems_step(const tfi_stems *t, uint32_t from, uint32_t c)
{
    const uint64_t bits = t->stems[from].bits;
    const uint32_t to = tfi_stem_child(bits, c);

    if (!tfi_stem_may_go_on(bits, c)) return 0;
    if ((t->stems[to].bits & TFI_STEM_POINT) == c) return to;
    return bits & TFI_STEM_MORE ? tfi_stems_look_up(t, from, c) : 0;
}

static inline double tfi_stems_score(const tfi_stems *t, uint32_t stem)
{
    return t->scores ? t->scores[stem] : (double)t->stems[stem].score;
}

/* The stem that is code point c alone, or 0. */
static inline uint32_t tfi_stems_first(const tfi_stems *t, uint32_t c)
{
    return c < TFI_FIRST_COUNT ? t->first[c] & TFI_STEMS_MAX : tfi_stems_look_up(t, TFI_STEM_ROOT, c);
}

#endif
