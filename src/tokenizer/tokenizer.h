/* What the files of this module share, and the one entry the model layer uses.
 *
 *   load*.c   files -> tf_tokenizer           added.c   added tokens: the rules of adding, finding them in text
 *   words.c   text -> tokens of one text      encode.c  texts -> rows: truncation, windows, special tokens, threads
 *   decode.c  ids -> text, by decoder.c       arrays.c  rows -> the caller's arrays, padded or not
 *   tokenizer.c  the small public calls
 *   pipeline.c  the same for any tokenizer.json: normalizer.c, splitter.c, then a model
 *
 * words.c finds the added tokens in a text and has WordPiece; bpe.c has byte-level BPE, bpe_word.c BPE of text, unigram.c with
 * charsmap.c and spm*.c Unigram, byt5.c bytes, japanese.c with mecab.c what goes before WordPiece in Japanese. pattern.c, regex.c and
 * sets.c are the patterns of tokenizer.json. Another model kind gets a file of its own beside them; rows, added tokens and decoding stay.
 */
#ifndef TFI_TOKENIZER_TOKENIZER_H
#define TFI_TOKENIZER_TOKENIZER_H

#include <tfinfer/tokenizer.h>

#include "base/files.h"
#include "base/memory.h"
#include "tokenizer/bpe.h"
#include "tokenizer/japanese.h"
#include "tokenizer/trie.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unigram.h"

/* Open the tokenizer of a checkpoint's files; `memory` must outlive it and takes the place of the options' allocator. options may be
 * NULL. NOT_FOUND (with text) if there is no tokenizer. */
tf_status tfi_tokenizer_open_files(const tfi_files *files, tfi_memory *memory, const tf_tokenizer_options *options,
                                   tf_tokenizer **out);

/* The same for a path, a directory's or a file's, with memory of its own. */
tf_status tfi_tokenizer_open_path(const char *path, const tf_tokenizer_options *options, tf_tokenizer **out);
/* And for a source, or its file `name` alone. */
tf_status tfi_tokenizer_open_source(const tf_source *source, const char *name, const tf_tokenizer_options *options,
                                    tf_tokenizer **out);

enum {
    TFI_TOKEN_ID_MAX = (1 << 24) - 1, /* ids index tables: a file must not ask for huge ones */
    TFI_TOKEN_PRESENT = 1,
    TFI_TOKEN_SPECIAL = 2,
    TFI_TOKEN_SPACED = 4, /* byte-level BPE: spells a space at its begin or end */
    TFI_TOKEN_WHOLE = 16, /* BPE of text: what a word of its characters merges into */
    TFI_TOKEN_NORMAL = 8, /* is shown in its normal form, which the vocabulary's is not */
    TFI_BYT5_FIRST = 3,   /* ByT5: pad, eos and unk come before the bytes */
    TFI_BYT5_IDS = 256 + TFI_BYT5_FIRST,
    TFI_ASCII_WORD = 0, /* classes of ASCII bytes in words.c */
    TFI_ASCII_SPACE,
    TFI_ASCII_PUNCTUATION,
    TFI_ASCII_REMOVED
};

/* One step of a post-processor's template: a special token's id, or a text. */
enum { TFI_PIECE_FIRST = -1, TFI_PIECE_SECOND = -2 };
typedef struct tfi_piece {
    int32_t id; /* a token id, TFI_PIECE_FIRST or TFI_PIECE_SECOND */
    int32_t type;
} tfi_piece;
typedef struct tfi_template {
    tfi_piece *pieces;
    int32_t count, specials;
} tfi_template;

typedef enum tfi_token_model {
    TFI_MODEL_WORDPIECE,
    TFI_MODEL_BPE,
    TFI_MODEL_UNIGRAM,
    TFI_MODEL_WORDLEVEL,
    TFI_MODEL_BYT5 /* bytes as they are */
} tfi_token_model;

/* How a token's string becomes text. */
typedef enum tfi_decoder {
    TFI_DECODER_PARTS, /* tf_tokenizer.decoders; if there are none, strings with a space between */
    TFI_DECODER_SPM,   /* as libsentencepiece */
    TFI_DECODER_BYT5   /* ids are bytes; what is not UTF-8 is left out */
} tfi_decoder;

/* A token that is found in the text before anything else is done with it. */
typedef struct tfi_added {
    const char *text;
    uint32_t size;
    int32_t id;
    uint8_t special, single_word, lstrip, rstrip, normalized;
    uint8_t shown_normal; /* was normalised at some time: then the reference decodes to the normal form */
    const char *shown;    /* what its id decodes to */
    uint32_t shown_size;
} tfi_added;

/* Added tokens as one automaton: values are indexes into tf_tokenizer.added. */
typedef struct tfi_added_set {
    tfi_trie trie;
    uint8_t first[256]; /* bytes some member begins with */
    int only_first;     /* the one such byte, or -1 */
    int count;
} tfi_added_set;

struct tf_tokenizer {
    uint64_t serial;    /* no other tokenizer of this process has it */
    tfi_memory own;     /* used by tf_tokenizer_open alone */
    tfi_memory *memory; /* &own, or the model's */
    tfi_arena arena;
    tf_log_fn log;
    void *log_user;

    tfi_token_model model;
    tfi_bpe bpe;
    tfi_unigram unigram;
    tfi_japanese japanese;

    /* The parts of a tokenizer.json, and what pipelines of the usual form have in place of them. */
    tfi_parts normalizers, splitters, decoders;
    int is_general;   /* text takes the long way, pipeline.c's */
    tfi_unicode more; /* second bytes of flags */

    /* BertNormalizer with WordPiece. The order of application is that of the fields. */
    int clean_text, split_cjk, strip_accents, lowercase;
    tfi_unicode unicode;
    uint8_t ascii_class[128], ascii_fold[128];

    /* Model. */
    tfi_trie vocab;        /* values are ids; Unigram has it in unigram.stems */
    int32_t vocab_entries; /* members of the trie */
    int32_t vocab_size;    /* largest id, added tokens included, plus 1 */
    char *text;            /* all token strings in id order, each with a NUL */
    uint32_t *text_begin;  /* [vocab_size + 1] into text */
    uint8_t *token_flags;  /* [vocab_size] TFI_TOKEN_* */
    const char *prefix;    /* of pieces inside a word: "##" */
    uint32_t prefix_size;
    int has_inner;       /* some token begins with prefix */
    uint32_t inner_node; /* where the trie stands after prefix */
    int64_t word_chars_max;
    int32_t unk_id, pad_id, cls_id, sep_id, mask_id, bos_id, eos_id;

    /* Added tokens. */
    tfi_added *added;
    int32_t added_count, added_capacity, added_largest;
    tfi_trie added_ids;   /* text -> index into added */
    tfi_added_set raw;    /* found in the text as it is */
    tfi_added_set folded; /* found in the normalised text */
    int split_special;    /* special tokens in the text are text */

    /* Post-processor, decoder, settings. */
    tfi_template single, pair;
    int windows_keep_type; /* in all windows but the first a text has its own type: 0 or 1, whatever the template says */
    int no_second_end;     /* no special token is put behind one that the text ends with */
    tfi_decoder decoder;
    int clean_up;
    int never_cleans;        /* the reference does not clean up what BPE decodes, whatever it is told */
    uint32_t token_size_max; /* bytes of the longest string */
    int32_t model_max_length, truncation_side;
    int first_keeps_more; /* of two texts cut to an odd number of tokens; else the longer one does */
};

/* The id of a token string: added tokens first, then the vocabulary; TFI_TRIE_NONE if there is none. */
int32_t tfi_token_id(const tf_tokenizer *t, const char *text, size_t size);

/* The id of a string of the vocabulary, or TFI_TRIE_NONE. */
static inline int32_t tfi_vocab_find(const tf_tokenizer *t, const char *text, size_t size)
{
    return t->model == TFI_MODEL_UNIGRAM ? tfi_stems_find(&t->unigram.stems, (const uint8_t *)text, size)
                                         : tfi_trie_find(&t->vocab, (const uint8_t *)text, size);
}

/* Grow *data to at least `need` elements, at least doubling. OK or NOMEM (then all is as before). */
tf_status tfi_reserve(tfi_memory *memory, void **data, size_t *capacity, size_t need, size_t element_size);

/* decode.c */

/* The bytes that a token adds inside a text, special or not; none for an id without a token. They may be part of a character. What
 * transformers' StopStringCriteria matches. `d`: made by tfi_pieces_open(), closed by tfi_decoding_close() (decoder.h).
 * OK, or TOO_SMALL: tfi_tokenizer_piece_max() bytes are enough for any. NOMEM or INVALID only by decoders that replace patterns. */
struct tfi_decoding;
tf_status tfi_pieces_open(struct tfi_decoding *d, const tf_tokenizer *t, tfi_memory *memory);
tf_status tfi_tokenizer_piece(struct tfi_decoding *d, const tf_tokenizer *t, int32_t id, char *out, int64_t capacity,
                              int64_t *size);
int64_t tfi_tokenizer_piece_max(const tf_tokenizer *t);

/* added.c */

/* Add a token as tokenizers' add_tokens does: what is new gets an id at the end, what is known is marked. token->id is set. */
tf_status tfi_added_token(tf_tokenizer *t, const tfi_added *token);
/* Build the sets after the last token was added. */
tf_status tfi_added_finish(tf_tokenizer *t);

typedef struct tfi_match {
    uint32_t begin, end; /* with the spaces that lstrip and rstrip take */
    uint32_t resume;     /* where the next search begins */
    int32_t index;       /* into tf_tokenizer.added */
} tfi_match;

/* The next added token in `text` at or after `from`; `taken` is the end of the last one with its spaces. 0 if there is none. */
int tfi_added_next(const tf_tokenizer *t, const tfi_added_set *set, const uint8_t *text, uint32_t size, uint32_t from,
                   uint32_t taken, tfi_match *match);

/* words.c, bpe.c */

/* The range of the first token of a window may begin and end one code point earlier than where it is not first (bpe.c says
 * why): first_begin and first_end are its bytes, or 0. */
typedef struct tfi_token {
    int32_t id, word;
    uint32_t byte_begin, byte_end, char_begin, char_end;
    uint8_t first_begin, first_end;
} tfi_token;

/* A code point of the normalised text and the code point of the original that it came from. */
typedef struct tfi_char {
    uint32_t at; /* its first byte in tfi_scratch.normal */
    uint32_t byte_begin, byte_end, index;
    uint8_t flags; /* TFI_UNICODE_* */
} tfi_char;

/* A code point waiting for canonical ordering. */
typedef struct tfi_mark {
    uint32_t c;
    uint16_t combining;
    uint16_t inserted; /* not the first of its decomposition */
    uint32_t byte_begin, byte_end, index;
} tfi_mark;

/* A code point of a normal form while it is made: it takes the place of 1 - change old ones, or is one more. */
typedef struct tfi_form {
    uint32_t c;
    int32_t change;
    uint32_t combining;
} tfi_form;

/* Code points [begin, end) of the normal form that belong together: an added token, or text. */
typedef struct tfi_span {
    uint32_t begin, end;
    int32_t added; /* index into tf_tokenizer.added, or TFI_TRIE_NONE */
} tfi_span;

/* The best way to a place in a piece of text; once it is known, the way on from there. */
typedef struct tfi_node {
    double score;
    uint64_t last; /* from bit TFI_STEM_BITS on where the last token before it begins, or where the next one ends; below that
                    * token's stem, or TFI_STEM_ROOT: it is unknown */
} tfi_node;

/* A part of a text; is_first and is_last if nothing of what is normalised together lies before or behind it. */
typedef struct tfi_range {
    uint32_t begin, end;
    int is_first, is_last;
} tfi_range;

/* A part of a word while it is merged: parts are a list of indexes. size 0: merged into the one before it. */
typedef struct tfi_symbol {
    int32_t id;
    uint32_t size;
    int32_t previous, next;
} tfi_symbol;

/* Where text that is not UTF-8 was repaired: offsets from `at` on lie `shift` bytes further in the original. */
typedef struct tfi_repair {
    uint32_t at;
    int64_t shift;
} tfi_repair;

/* One thread's working memory; kept from call to call. Zero-initialise, set memory. */
typedef struct tfi_scratch {
    tfi_memory *memory;
    tfi_token *tokens;
    uint8_t *normal;
    tfi_char *chars;
    tfi_mark *marks, *sorted;
    uint8_t *repaired;
    tfi_repair *repairs;
    tfi_symbol *symbols;
    uint64_t *heap; /* merges that may come next */
    tfi_node *nodes;
    uint8_t *piece;
    uint32_t *points;     /* a piece's code points */
    tfi_word *words;      /* [TFI_WORDS] or NULL */
    uint64_t words_owner; /* the serial of the tokenizer that they are words of */
    void *lattice;        /* libmecab's */
    tfi_form *forms;
    tfi_span *spans, *divided; /* what is being divided, and into what */
    tfi_char *new_chars;       /* of a normal form that takes the place of chars and normal */
    uint8_t *new_normal;
    void *match_data, *match_limits; /* pattern.c's; the steps of the present text, less those that its length allows */
    int64_t pattern_steps;
    uint8_t *classes; /* the text as classes of a pattern */
    size_t class_count, class_capacity;
    size_t char_limit; /* code points that a normal form may have */
    size_t sorted_count, node_capacity, point_capacity, piece_size, piece_capacity;
    size_t token_count, normal_size, char_count, mark_count, repaired_size, repair_count, symbol_count, heap_count;
    size_t token_capacity, normal_capacity, char_capacity, mark_capacity, sorted_capacity, repaired_capacity, repair_capacity;
    size_t symbol_capacity, heap_capacity;
    size_t form_count, form_capacity, span_count, span_capacity, divided_count, divided_capacity;
    size_t new_char_count, new_char_capacity, new_normal_size, new_normal_capacity;
} tfi_scratch;

void tfi_scratch_close(tfi_scratch *s);

/* A text on its way to tokens. */
typedef struct tfi_reading {
    const tf_tokenizer *t;
    tfi_scratch *s;
    const uint8_t *text;
    uint32_t chars; /* code points before the place reached */
    int32_t word;
} tfi_reading;

static inline tf_status tfi_reserve_tokens(tfi_scratch *s, size_t more)
{
    if (s->token_count + more <= s->token_capacity) return TF_STATUS_OK;
    return tfi_reserve(s->memory, (void **)&s->tokens, &s->token_capacity, s->token_count + more, sizeof *s->tokens);
}

/* Append a token of the present word, for which room was reserved. */
static inline tfi_token *tfi_put_token(tfi_reading *x, int32_t id, uint32_t byte_begin, uint32_t byte_end, uint32_t char_begin,
                                       uint32_t char_end)
{
    tfi_token *k = &x->s->tokens[x->s->token_count++];

    *k = (tfi_token){.id = id,
                     .word = x->word,
                     .byte_begin = byte_begin,
                     .byte_end = byte_end,
                     .char_begin = char_begin,
                     .char_end = char_end};
    return k;
}

/* Append the tokens of one text, valid UTF-8 of at most 2^30 bytes. OK or NOMEM. */
tf_status tfi_words(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, uint32_t size);

/* Replace s->normal and s->chars by the normal form of text[begin, end); *chars counts code points. OK or NOMEM. */
tf_status tfi_normalize(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, uint32_t begin, uint32_t end,
                        uint32_t *chars);

/* The first code point of the normal form at or after byte `at`. */
size_t tfi_char_index(const tfi_scratch *s, uint32_t at);

/* Append the tokens of a word: the code points [begin, end) of the normal form, not none. OK, NOMEM, INVALID (bpe_word.c). */
tf_status tfi_wordpiece_word(tfi_reading *x, size_t begin, size_t end);
tf_status tfi_bpe_word(tfi_reading *x, size_t begin, size_t end);
tf_status tfi_unigram_word(tfi_reading *x, size_t begin, size_t end);

/* Fill the ASCII tables from the normalizer's settings. */
void tfi_words_init(tf_tokenizer *t);

/* bpe.c */

/* Append the tokens of text[begin, end), which is not empty and has no added tokens. OK or NOMEM. */
tf_status tfi_bpe_segment(tfi_reading *x, uint32_t begin, uint32_t end);

/* Take the white space that the token's string begins and ends with off its range, as the reference's trim_offsets does. */
void tfi_bpe_trim(const tfi_reading *x, tfi_token *k, const uint8_t *string, uint32_t size);

/* After the vocabulary, its merges and the added tokens: all that is looked up while encoding. OK or NOMEM. */
tf_status tfi_bpe_finish(tf_tokenizer *t);
/* The same for words that are text (bpe_word.c): the ids of <0x00> to <0xFF>, and which tokens are whole words. */
tf_status tfi_bpe_finish_words(tf_tokenizer *t);

/* Merge s->symbols, a list from the first one; the heap has room for two keys a symbol. */
void tfi_bpe_merge(const tfi_bpe *b, tfi_scratch *s);

/* normalizer.c */

/* Replace s->normal and s->chars by the normal form of a part of `text`; *chars counts code points. *lost: code points were
 * removed from the begin, which in the reference shifts the ranges of all that follow: normalise it all together. OK or NOMEM.
 */
tf_status tfi_run_normalizers(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, const tfi_range *range,
                              uint32_t *chars, int *lost);

/* INVALID, with a text: a normal form has more code points than s->char_limit. */
tf_status tfi_too_long(void);

/* The code points of text[begin, end) into s->marks, the first one being number `chars`; lower-case s->marks. OK or NOMEM. */
tf_status tfi_read_chars(tfi_scratch *s, const uint8_t *text, uint32_t begin, uint32_t end, uint32_t chars);
tf_status tfi_lower_chars(const tf_tokenizer *t, tfi_scratch *s);

/* spm_normalizer.c: the same by libsentencepiece's rules; ranges end where the next one begins, that of the last one at s->chars[char_count]. */
tf_status tfi_spm_normalize(const tf_tokenizer *t, tfi_scratch *s, const uint8_t *text, uint32_t begin, uint32_t end,
                            uint32_t *chars);

/* unigram.c */

/* Append the tokens of text[begin, end), which is not empty and has no added tokens. OK or NOMEM. */
tf_status tfi_unigram_segment(tfi_reading *x, uint32_t begin, uint32_t end);

/* byt5.c, japanese.c */
tf_status tfi_byt5_segment(tfi_reading *x, uint32_t begin, uint32_t end);
tf_status tfi_japanese_segment(tfi_reading *x, uint32_t begin, uint32_t end);

#endif
