/* Unigram: pieces with log-probabilities, and the way through a text on which their sum is largest. Two sets of rules go with
 * it: tokenizers' (steps of normalising, splitting at spaces, U+2581 for a space), which T5, mT5, XLM-R, CamemBERT and
 * tokenizer.json have, and libsentencepiece's own, which a bare .model file has and T5's class where unk_id is not 2 (rinna's
 * GPT-2). */
#ifndef TFI_TOKENIZER_UNIGRAM_H
#define TFI_TOKENIZER_UNIGRAM_H

#include <stdint.h>

#include "tokenizer/charsmap.h"
#include "tokenizer/pipeline.h"
#include "tokenizer/stems.h"
#include "tokenizer/trie.h"
#include "tokenizer/unicode.h"

enum { TFI_PIECE_SIZE_MAX = 1024 }; /* bounds what one place in a text can cost */

/* What the short way for words asks of a code point; in the high bits of tfi_stems.first. */
enum {
    TFI_POINT_SLOW = 1, /* takes the long way */
    TFI_POINT_SECOND =
        2, /* some member of the map has it behind its first code point: may change together with what is before it */
    TFI_POINT_JOINS = 4,   /* is one grapheme with a space before it */
    TFI_POINT_SPACE = 8,   /* is a space, or becomes one, unless what is behind it joins */
    TFI_POINT_MAPPED = 16, /* is changed by itself to what has no space and no mark, unless what is behind it joins */
    TFI_POINT_ASKED = TFI_POINT_SLOW | TFI_POINT_SECOND | TFI_POINT_SPACE | TFI_POINT_MAPPED
};

typedef struct tfi_unigram {
    tfi_stems stems; /* the vocabulary */
    double *scores;  /* [vocab_size] of it */
    double unk_score;
    double score_most; /* no score, that of an unknown code point included, is larger, whatever its sign */
    int32_t unk_id;
    int byte_fallback;
    int has_twins;        /* some piece is there twice: texts have the last one */
    int32_t byte_id[256]; /* <0x00>, ...; TFI_TRIE_NONE where there is none */

    tfi_charsmap map;
    int is_plain;  /* the map is all there is to normalising */
    int has_seams; /* text may be normalised in parts that end before a space between printing ASCII */

    int split_spaces; /* WhitespaceSplit goes first */
    int has_mark;     /* Metaspace: a space becomes the mark */
    int split_marks;  /* a mark begins a new piece */
    tfi_prepend prepend;
    uint32_t mark; /* usually U+2581 */
    uint8_t mark_text[4];
    uint32_t mark_size;
    uint8_t ascii[128]; /* TFI_ASCII_WORD, _SPACE, or _REMOVED for what the charsmap changes */
    int has_words;      /* there is a short way for words, */
    int has_spaces;     /* on which U+0020 is nothing but a space */

    /* libsentencepiece's rules. */
    int is_spm, lowercase, dummy_prefix, remove_extra_spaces, escape_spaces, space_is_suffix;
    tfi_trie user; /* user-defined pieces, which stay as they are */
    int32_t user_count;
    int spans_words; /* some piece has a mark behind its begin */
    const char *unk_surface;
    uint32_t unk_surface_size;
} tfi_unigram;

/* Words whose tokens are known, for one thread and one tokenizer: a table in which a word has one place. */
enum { TFI_WORDS = 4096, TFI_WORD_BYTES = 16, TFI_WORD_TOKENS = 8 }; /* a word is a line of cache */
enum { TFI_WORD_ID_BITS = 22, TFI_WORD_END_BITS = 5 };
typedef struct tfi_word {
    uint64_t a, b; /* its bytes, zeros behind them */
    /* Of each token its id, then its end in code points and its end in bytes, in the word without the mark before it. */
    uint32_t tokens[TFI_WORD_TOKENS];
    float score,
        margin; /* of its way, and by how much the least clear choice on it was one; only with libsentencepiece's rules */
    uint8_t size, count, prefix; /* size 0: a free place. prefix: of the mark before it */
    uint8_t chars;
    uint8_t is_lone;     /* the first token is the mark alone, in the range of the second */
    uint8_t is_together; /* what the map does to it may hang on what is behind it */
    uint8_t unused[2];
} tfi_word;

static inline void tfi_unigram_close(tfi_unigram *u)
{
    tfi_stems_close(&u->stems);
    tfi_trie_close(&u->user);
}

#endif
