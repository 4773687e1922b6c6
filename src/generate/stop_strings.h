/* Stop strings, matched against the bytes that tokens add, token by token, by transformers' StopStringCriteria: the prompt
 * counts, a match may begin and end inside tokens, and it must end within the newest one.
 *
 * Of each string and sequence all that is remembered is how much of the string the text ends with (Knuth, Morris, Pratt 1977):
 * an array of ints a sequence, to be copied when a beam is. */
#ifndef TFI_GENERATE_STOP_STRINGS_H
#define TFI_GENERATE_STOP_STRINGS_H

#include <tfinfer/tokenizer.h>

#include "base/memory.h"

/* The strings of one request; used by one thread at a time. */
typedef struct tfi_stops {
    tfi_memory *memory;
    const tf_tokenizer *tokenizer;
    const tf_text *strings; /* [count] borrowed; sizes are given */
    int32_t count;
    int32_t **back; /* [count][size]: what is left of a match of i + 1 bytes when the next byte does not go on from it */
    struct tfi_decoding *pieces; /* what reads tokens */
    char *piece;                 /* bytes of one */
    int64_t piece_capacity;
    void *block;
    size_t block_bytes;
} tfi_stops;

/* What a token completed. */
typedef struct tfi_stop_match {
    int32_t index;      /* of the string that ends first; of several the first in the list */
    int64_t bytes_left; /* of the newest token, behind the match */
} tfi_stop_match;

/* The strings are not empty. NOMEM. Close also after a failure. */
tf_status tfi_stops_open(tfi_stops *s, const tf_text *strings, int32_t count, const tf_tokenizer *tokenizer,
                         tfi_memory *memory);
void tfi_stops_close(tfi_stops *s);

/* A sequence's state is `int32_t state[count]`. Begin with the prompt, in which nothing counts as found. */
void tfi_stops_begin(tfi_stops *s, int32_t *state, const int32_t *prompt, int64_t prompt_count);

/* Go on by a token. 1 if it completes a string; *match says which. */
int tfi_stops_add(tfi_stops *s, int32_t *state, int32_t token, tfi_stop_match *match);

/* Whether `token` would complete a string. */
int tfi_stops_completes(tfi_stops *s, const int32_t *state, int32_t token);

/* Where the match begins: its offset in the text of ids[count], the sequence's new tokens, the last of which completed it. 0 if
 * it begins in the prompt. Exact for text that is UTF-8, decoded without cleaning up. NOMEM. */
tf_status tfi_stops_find(tfi_stops *s, const int32_t *ids, int64_t count, const tfi_stop_match *match, int skip_special_tokens,
                         int64_t *begin);

#endif
