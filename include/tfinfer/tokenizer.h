/**
 * @file tokenizer.h
 * Text to token ids and back, exactly as Hugging Face transformers does it, without the rest of the library:
 *
 * @code
 * #include <stdio.h>
 * #include <tfinfer/tokenizer.h>
 *
 * int main(int argc, char **argv)
 * {
 *     tf_tokenizer *tok;
 *     tf_encoding *enc;
 *     tf_encoding_data d;
 *     tf_text text = tf_text_of("Hello, wordpiece!");
 *
 *     if (argc < 2 || tf_tokenizer_open(argv[1], NULL, &tok) < 0) return fprintf(stderr, "%s\n", tf_last_error()), 1;
 *     if (tf_encoding_open(tok, &enc) < 0 || tf_tokenizer_encode(tok, &text, NULL, 1, NULL, enc) < 0) return 1;
 *     tf_encoding_data_init(&d);
 *     tf_encoding_get(enc, &d);
 *     for (int64_t i = 0; i < d.tokens; i++) printf("%d ", (int)d.ids[i]);
 *     tf_encoding_close(enc);
 *     tf_tokenizer_close(tok);
 * }
 * @endcode
 *
 * Ownership: what _open makes, the matching _close frees; _close takes NULL.
 * Threads: tf_tokenizer is immutable after open and shared by any number of threads. tf_encoding and tf_stream belong to one thread
 * at a time.
 */
#ifndef TFINFER_TOKENIZER_H
#define TFINFER_TOKENIZER_H

#include <tfinfer/base.h>
#include <tfinfer/source.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tf_tokenizer tf_tokenizer; /**< a vocabulary with its rules; immutable */
typedef struct tf_encoding tf_encoding;   /**< the reusable result of tf_tokenizer_encode */
typedef struct tf_stream tf_stream;       /**< ids to text, one id after the other */

/** Settings of tf_tokenizer_open(). */
typedef struct tf_tokenizer_options {
    uint64_t struct_size;
    const tf_allocator *allocator; /**< NULL: the C library's */
    tf_log_fn log;                 /**< NULL: none */
    void *log_user;
    const char *mecab_dictionary;  /**< folder of the MeCab dictionary that a Japanese BERT's tokenizer_config.json names (mecab_dic):
                                        dicrc, sys.dic, unk.dic, matrix.bin, char.bin. NULL: none, such checkpoints are refused */
} tf_tokenizer_options;

static inline void tf_tokenizer_options_init(tf_tokenizer_options *o)
{
    o->struct_size = sizeof *o;
    o->allocator = NULL;
    o->log = NULL;
    o->log_user = NULL;
    o->mecab_dictionary = NULL;
}

/**
 * Open the tokenizer of a Hugging Face directory, or a single tokenizer.json, vocab.txt or SentencePiece *.model named by `path`.
 * A directory has tokenizer.json; or vocab.txt (WordPiece); or vocab.json with merges.txt (byte-level BPE), which may go by their
 * first names, encoder.json and vocab.bpe; or spiece.model or sentencepiece.bpe.model (Unigram); or, for ByT5, none of them; and
 * with any of them tokenizer_config.json. A *.model file by itself is read as the SentencePiece library reads it: no special tokens
 * around the text, none looked for in it.
 *
 * @return TF_STATUS_OK
 *         TF_STATUS_NOT_FOUND    no tokenizer file there
 *         TF_STATUS_CORRUPT      a file is malformed; the text names file, key and value
 *         TF_STATUS_UNSUPPORTED  a kind of tokenizer, normalizer or setting that is not built; named, never read as something else
 *         TF_STATUS_IO, TF_STATUS_NOMEM, TF_STATUS_INVALID
 */
TF_API tf_status tf_tokenizer_open(const char *path, const tf_tokenizer_options *options, tf_tokenizer **out);

/**
 * Open a tokenizer from files that the host hands over; tf_tokenizer_open() is this call over a directory.
 *
 * @param source  Files by name; its tensors are not asked for. Released before the call returns.
 * @param name    The one file that is wanted: a *.json, vocab.txt or *.model, by its name in the source. NULL: what a directory has.
 * @return as tf_tokenizer_open(), or what a callback of the source returned, with its text.
 */
TF_API tf_status tf_tokenizer_open_source(const tf_source *source, const char *name, const tf_tokenizer_options *options,
                                          tf_tokenizer **out);
TF_API void tf_tokenizer_close(tf_tokenizer *t);

/** Facts about a tokenizer; ids are -1 where the vocabulary has no such token. */
typedef struct tf_tokenizer_info {
    uint64_t struct_size;
    const char *model;        /**< "WordPiece", "BPE", "Unigram", "WordLevel" or "ByT5"; static */
    int32_t vocab_size;       /**< ids are in [0, vocab_size) */
    int32_t model_max_length; /**< tokens a text may have by tokenizer_config.json; INT32_MAX if it sets no limit */
    int32_t unk_id, pad_id, cls_id, sep_id, mask_id, bos_id, eos_id; /**< special tokens */
    int32_t special_tokens_single; /**< tokens the post-processor adds around one text */
    int32_t special_tokens_pair;   /**< the same around a pair */
    int32_t lowercase;             /**< 1 if text is lower-cased before it is split */
} tf_tokenizer_info;

static inline void tf_tokenizer_info_init(tf_tokenizer_info *i)
{
    i->struct_size = sizeof *i;
}

/** Fill `info`: the caller sets struct_size, at most that many bytes are written. @return OK or INVALID. */
TF_API tf_status tf_tokenizer_get_info(const tf_tokenizer *t, tf_tokenizer_info *info);

/**
 * The token string of an id, as the vocabulary spells it ("##ing"; BPE spells each byte as one letter); not NUL-terminated text of
 * the model, but `*token` is.
 * @return OK, or INVALID for an id outside [0, vocab_size). *token belongs to the tokenizer.
 */
TF_API tf_status tf_tokenizer_token(const tf_tokenizer *t, int32_t id, const char **token);

/** The id of a token string. @return OK, or NOT_FOUND (then *id is -1; the last error is left as it was). */
TF_API tf_status tf_tokenizer_id(const tf_tokenizer *t, tf_text token, int32_t *id);

/** Which text loses tokens where there is no room for all. */
typedef enum tf_truncation {
    TF_TRUNCATION_NONE = 0,
    TF_TRUNCATION_LONGEST_FIRST = 1, /**< of a pair, the longer text loses tokens first */
    TF_TRUNCATION_ONLY_FIRST = 2,
    TF_TRUNCATION_ONLY_SECOND = 3
} tf_truncation;

/** An end of a text. */
typedef enum tf_side { TF_SIDE_RIGHT = 0, TF_SIDE_LEFT = 1 } tf_side;

/** Settings of tf_tokenizer_encode(). */
typedef struct tf_tokenize_options {
    uint64_t struct_size;
    int32_t add_special_tokens; /**< 0 or 1; unset: 1 */
    int32_t truncation;         /**< tf_truncation; unset: NONE */
    int32_t max_length;         /**< tokens with the special ones; needed when truncation is not NONE, unset: model_max_length */
    int32_t truncation_side;    /**< tf_side: where tokens are cut away; unset: what tokenizer_config.json says, else RIGHT */
    int32_t stride;             /**< tokens that neighbouring windows share, >= 0; unset: 0. Only with overflow */
    int32_t overflow;           /**< 1: what truncation cuts away comes as further rows; unset: 0 */
    int32_t replace_invalid;    /**< 1: text that is not UTF-8 reads as U+FFFD as Python's errors="replace" does; unset: 0, an error */
    int32_t threads;            /**< threads for a batch, the caller's included, >= 1; unset: 1 */
} tf_tokenize_options;

static inline void tf_tokenize_options_init(tf_tokenize_options *o)
{
    o->struct_size = sizeof *o;
    o->add_special_tokens = TF_UNSET;
    o->truncation = TF_UNSET;
    o->max_length = TF_UNSET;
    o->truncation_side = TF_UNSET;
    o->stride = TF_UNSET;
    o->overflow = TF_UNSET;
    o->replace_invalid = TF_UNSET;
    o->threads = TF_UNSET;
}

/** Make an empty result to encode into; it keeps its buffers from call to call. @return OK, NOMEM or INVALID. */
TF_API tf_status tf_encoding_open(const tf_tokenizer *t, tf_encoding **out);
TF_API void tf_encoding_close(tf_encoding *e);

/**
 * Encode `count` texts, or pairs of texts, replacing what `out` held.
 *
 * @param texts    [count] UTF-8; empty text is valid and gives the special tokens alone.
 * @param pairs    [count] the second text of each pair, or NULL for single texts.
 * @param options  NULL: special tokens, no truncation.
 *
 * @return TF_STATUS_OK
 *         TF_STATUS_INVALID  text that is not UTF-8 (the message gives text number and byte offset), a setting out of range,
 *                            max_length too small for the special tokens, a text on which a pattern of tokenizer.json takes too
 *                            many steps, or a word that the vocabulary lacks without a token for it; `out` is then empty
 *         TF_STATUS_NOMEM
 */
TF_API tf_status tf_tokenizer_encode(const tf_tokenizer *t, const tf_text *texts, const tf_text *pairs, int64_t count,
                                     const tf_tokenize_options *options, tf_encoding *out);

/**
 * A view of a tf_encoding; the arrays belong to it until it is encoded into again or closed. Rows are packed: row r holds the
 * tokens [row_start[r], row_start[r + 1]). A text has one row, or more with overflow.
 * Offsets are half-open ranges in the original text (of the pair's member in `sequence`); special tokens have (0, 0).
 */
typedef struct tf_encoding_data {
    uint64_t struct_size;
    int64_t rows, tokens;       /**< how many there are in all */
    const int64_t *row_start;   /**< [rows + 1] */
    const int64_t *row_text;    /**< [rows] index of the text in the call */
    const int32_t *ids;         /**< [tokens] */
    const int32_t *type_ids;    /**< [tokens] token type (segment) */
    const int32_t *sequence;    /**< [tokens] 0 or 1: first or second text; -1: special token */
    const int32_t *word;        /**< [tokens] number of the word in its text; -1: special token */
    const int64_t *byte_begin;  /**< [tokens] */
    const int64_t *byte_end;    /**< [tokens] */
    const int64_t *char_begin;  /**< [tokens] in code points */
    const int64_t *char_end;    /**< [tokens] */
} tf_encoding_data;

static inline void tf_encoding_data_init(tf_encoding_data *d)
{
    d->struct_size = sizeof *d;
}

/** Fill `data`; see there. @return OK or INVALID. */
TF_API tf_status tf_encoding_get(const tf_encoding *e, tf_encoding_data *data);

/** The caller's arrays for tf_encoding_write(); those left NULL are not wanted. */
typedef struct tf_encoding_arrays {
    uint64_t struct_size;
    int64_t row_capacity;   /**< rows there is room for; row_start takes one number more */
    int64_t token_capacity; /**< tokens that each of the other arrays has room for */
    int64_t width;          /**< tokens a row: shorter ones are padded. 0: as many as the longest row has; unset: rows are packed */
    int32_t pad_id;         /**< the id of padding; unset: 0 */
    int32_t pad_side;       /**< tf_side: where a row is padded; unset: RIGHT */
    int64_t *row_start;     /**< [rows + 1] */
    int64_t *row_text;      /**< [rows] */
    int32_t *mask;          /**< 1: a token, 0: padding */
    int32_t *ids, *type_ids, *sequence, *word; /**< padding has pad_id, 0, -1 and -1 */
    int64_t *byte_begin, *byte_end, *char_begin, *char_end; /**< padding has 0 */
} tf_encoding_arrays;

static inline void tf_encoding_arrays_init(tf_encoding_arrays *a)
{
    a->struct_size = sizeof *a;
    a->row_capacity = a->token_capacity = 0;
    a->width = TF_UNSET;
    a->pad_id = a->pad_side = TF_UNSET;
    a->row_start = a->row_text = NULL;
    a->mask = a->ids = a->type_ids = a->sequence = a->word = NULL;
    a->byte_begin = a->byte_end = a->char_begin = a->char_end = NULL;
}

/**
 * Copy what an encoding holds, all of it or ids alone, into arrays of the caller's: packed, or padded to rows of one width. Allocates
 * nothing; texts of the same sizes encoded again with tf_tokenizer_encode() on one thread allocate nothing either.
 *
 * @param rows    Receives how many rows there are.
 * @param tokens  Receives how many elements of each token array that takes: with padding the width is *tokens / *rows.
 * @return OK; TOO_SMALL: nothing was written, *rows and *tokens say what is needed; INVALID: a row is longer than `width`, or a
 *         setting is out of range.
 */
TF_API tf_status tf_encoding_write(const tf_encoding *e, const tf_encoding_arrays *arrays, int64_t *rows, int64_t *tokens);

/** Settings of tf_tokenizer_decode() and tf_stream_open(). */
typedef struct tf_decode_options {
    uint64_t struct_size;
    int32_t skip_special_tokens; /**< unset: 0 */
    int32_t clean_up;            /**< undo spaces before punctuation; unset: what the checkpoint says. Not done to BPE's text */
} tf_decode_options;

static inline void tf_decode_options_init(tf_decode_options *o)
{
    o->struct_size = sizeof *o;
    o->skip_special_tokens = TF_UNSET;
    o->clean_up = TF_UNSET;
}

/**
 * Ids to text. Writes at most `capacity` bytes to `text` (NULL if that is 0), no NUL added, and the full size to *size.
 * @return OK, TOO_SMALL (*size says what is needed, `text` untouched), INVALID (an id outside the vocabulary), NOMEM.
 */
TF_API tf_status tf_tokenizer_decode(const tf_tokenizer *t, const int32_t *ids, int64_t count, const tf_decode_options *options,
                                     char *text, int64_t capacity, int64_t *size);

/**
 * Begin a text that comes id by id, as generation gives it. Everything that pushing needs is allocated here.
 *
 * @param t        Tokenizer; must stay open as long as the stream.
 * @param options  As for tf_tokenizer_decode; NULL: what the checkpoint says. Copied.
 * @return OK, NOMEM, INVALID or UNSUPPORTED (options).
 */
TF_API tf_status tf_stream_open(const tf_tokenizer *t, const tf_decode_options *options, tf_stream **out);

/**
 * Take one more id and point *text at what is now certain of the text: *size bytes, no NUL behind them, whole UTF-8 characters,
 * possibly none. All pieces up to and with tf_stream_finish()'s, one after the other, are what tf_tokenizer_decode() gives for all
 * ids at once. The work does not depend on how much went before, and nothing is allocated, unless the decoders of a tokenizer.json
 * must see more to decide: byte tokens that make no character yet, a pattern that is looked for in the text of all tokens.
 *
 * @param text  Receives the piece; it belongs to the stream until its next call.
 * @return OK, or INVALID for an id outside [0, vocab_size): then *size is 0 and the stream goes on as if it had not been pushed.
 *         NOMEM or INVALID where such decoders fail: then reset the stream.
 */
TF_API tf_status tf_stream_push(tf_stream *s, int32_t id, const char **text, int64_t *size);

/** What was held back until now: the end of the text. The stream is then as new. @return OK, INVALID or NOMEM. */
TF_API tf_status tf_stream_finish(tf_stream *s, const char **text, int64_t *size);

/** Forget what was pushed and begin anew with the same options. NULL does nothing. */
TF_API void tf_stream_reset(tf_stream *s);
TF_API void tf_stream_close(tf_stream *s);

#ifdef __cplusplus
}
#endif
#endif
