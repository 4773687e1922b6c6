/* Sets of code points, and the classes into which some of them divide all of Unicode. */
#ifndef TFI_TOKENIZER_SETS_H
#define TFI_TOKENIZER_SETS_H

#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "tokenizer/unicode.h"

enum { TFI_POINT_LAST = 0x10ffff, TFI_SETS_MAX = 256, TFI_SET_WORDS = TFI_SETS_MAX / 64, TFI_CLASSES_MAX = 256 };

/* [first, last] */
typedef struct tfi_points {
    uint32_t first, last;
} tfi_points;

/* Zero-initialise. Sorted and without neighbours once normalised. */
typedef struct tfi_set {
    tfi_points *data;
    size_t count, capacity;
} tfi_set;

/* OK or NOMEM, as all below. */
tf_status tfi_set_add(tfi_memory *memory, tfi_set *s, uint32_t first, uint32_t last);
void tfi_set_close(tfi_memory *memory, tfi_set *s);
void tfi_set_normalize(tfi_set *s);
tf_status tfi_set_invert(tfi_memory *memory, tfi_set *s);
tf_status tfi_set_join(tfi_memory *memory, tfi_set *to, const tfi_set *from);
tf_status tfi_set_intersect(tfi_memory *memory, tfi_set *to, tfi_set *from); /* changes `from`, too */
/* Add the other cases of what is in the set and of ASCII: U+017F is an s, U+212A a k. */
tf_status tfi_set_fold(tfi_memory *memory, tfi_set *s);

/* Code points that are in the same sets are of one class, a byte. */
typedef struct tfi_partition {
    tfi_unicode *classes;                             /* out; pages live in the arena */
    uint64_t members[TFI_CLASSES_MAX][TFI_SET_WORDS]; /* the sets that each class is in; none if there is no such class */
    uint32_t count;
    uint8_t page[256]; /* the one being filled */
} tfi_partition;

/* Divide by `sets`, of which the first is a newline alone; that keeps its code as its class. Zero-initialise *p, set classes.
 * OK, NOMEM, or UNSUPPORTED without a text: too many classes. */
tf_status tfi_sets_divide(tfi_memory *memory, const tfi_set *sets, uint32_t count, tfi_arena *arena, tfi_partition *p);

#endif
