/* The best way through a piece of text by Unigram. */
#ifndef TFI_TOKENIZER_BEST_WAY_H
#define TFI_TOKENIZER_BEST_WAY_H

#include "tokenizer/tokenizer.h"

/* A piece of text as code points, and how its places lie in the original: those of `chars`, or the same code points from byte
 * `begin` on, one for one. */
enum { TFI_WORD_POINTS = 32 }; /* a piece of so many code points is a word, which is done at once */

typedef struct tfi_passage {
    const uint32_t *points; /* [count + 1], TFI_POINT_END behind the last */
    uint32_t count;
    uint32_t prefix;       /* 1: a mark goes before what the original has */
    const tfi_char *chars; /* of each code point but the prefix; with libsentencepiece's rules of all, and one more. Or NULL: */
    uint32_t begin, index; /* the byte and the code point of the original behind the prefix, */
    uint32_t gap, gap_chars; /* how far before it the prefix begins, */
    uint32_t at, byte;       /* and a place reached with its byte */
    const uint8_t *bytes;    /* of each place behind `begin` where that is known, else NULL */
} tfi_passage;

/* Append the tokens of a piece of text, as ones of the present word. *score is that before it, then that behind it. With `margin` sums are
 * not rounded to floats, as libsentencepiece does it, and it gets the least difference between two ways to a place: where that is beyond
 * doubt the way is the same. OK or NOMEM. */
tf_status tfi_best_way(tfi_reading *x, tfi_passage *p, double *score, double *margin);

/* By libsentencepiece's rules: is there, within so many code points behind a sum, no place where it takes a sum off? */
int tfi_sum_is_small(const tfi_unigram *u, double sum, uint32_t points);

#endif
