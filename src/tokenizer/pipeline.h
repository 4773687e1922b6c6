/* The parts of a tokenizer.json, and the way through them that holds for all: normalizers, added tokens, pre-tokenizers, model.
 *
 * A part is a kind with its settings. normalizer.c, splitter.c and decoder.c each have the table of their kinds: name, reader,
 * runner; parts.c reads what a file lists by such a table. words.c, bpe.c and unigram.c have shorter ways for the pipelines that
 * most files have; what they do not cover goes through tfi_pipeline_segment(), code point by code point as the reference's
 * NormalizedString and PreTokenizedString do it. */
#ifndef TFI_TOKENIZER_PIPELINE_H
#define TFI_TOKENIZER_PIPELINE_H

#include "tokenizer/charsmap.h"
#include "tokenizer/pattern.h"

struct tf_tokenizer;
struct tfi_json;
struct tfi_pass;
struct tfi_reading;
struct tfi_stage;

enum { TFI_PARTS_MAX = 32 };

/* What becomes of a delimiter. */
typedef enum tfi_behavior {
    TFI_REMOVED,
    TFI_ISOLATED,
    TFI_MERGED_WITH_PREVIOUS,
    TFI_MERGED_WITH_NEXT,
    TFI_CONTIGUOUS
} tfi_behavior;

/* Where Metaspace puts its mark before a word that does not begin with it. */
typedef enum tfi_prepend { TFI_PREPEND_NEVER, TFI_PREPEND_FIRST, TFI_PREPEND_ALWAYS } tfi_prepend;

/* May text be normalised in parts that end before a space between printing ASCII? */
typedef enum tfi_seams {
    TFI_SEAMS_SAFE,
    TFI_SEAMS_SPACE, /* only if the space becomes Metaspace's mark, as it would anyway */
    TFI_SEAMS_UNSAFE
} tfi_seams;

typedef struct tfi_string {
    const char *data; /* UTF-8 with a NUL behind it */
    uint32_t size;
} tfi_string;

typedef struct tfi_part tfi_part;
typedef struct tfi_part_kind {
    const char *name;
    tf_status (*read)(struct tf_tokenizer *t, const struct tfi_json *json, tfi_part *part); /* NULL: it has no settings */
    tf_status (*normalize)(struct tfi_pass *p, const tfi_part *part);
    tf_status (*split)(struct tfi_reading *x, const tfi_part *part);
    tf_status (*decode)(struct tfi_stage *s, const char *text, size_t size, int chunk); /* tfi_chunk */
} tfi_part_kind;

struct tfi_part {
    const tfi_part_kind *kind;
    tfi_pattern *pattern;     /* Replace, Split */
    const tfi_charsmap *map;  /* Precompiled */
    tfi_string from, to;      /* Prepend, Replace (to), WordPiece and BPEDecoder (from), CTC (both) */
    uint32_t mark, mark_size; /* Metaspace, CharDelimiterSplit, Strip (decoder): a code point */
    uint8_t mark_text[4];
    tfi_behavior behavior;
    int is_inverted;
    int left, right;                                     /* Strip */
    int clean_text, split_cjk, strip_accents, lowercase; /* BertNormalizer */
    int each;                                            /* Digits: every one by itself */
    int prefix_space, use_pattern;                       /* ByteLevel */
    int splits;                                          /* Metaspace: before each mark */
    tfi_prepend prepend;
    int cleans;          /* WordPiece, CTC */
    int64_t start, stop; /* Strip (decoder); FixedLength (stop) */
    tfi_seams seams;     /* of a normalizer */
    int is_run;          /* Replace: two and more of the character `from`; else, without a pattern's expression, `from` */
};

typedef struct tfi_parts {
    tfi_part *data; /* [TFI_PARTS_MAX], or NULL while there are none */
    int count;
} tfi_parts;

extern const tfi_part_kind tfi_normalizers[], tfi_splitters[], tfi_decoders[]; /* the last has no name */

/* parts.c: read the component `key` of a tokenizer.json, sequences flattened; `list` is the key of a Sequence's members. */
tf_status tfi_parts_read(struct tf_tokenizer *t, const struct tfi_json *root, const char *key, const char *list,
                         const tfi_part_kind *kinds, tfi_parts *out);
/* Append a part of a class's own, by the name of its kind. */
tf_status tfi_parts_add(struct tf_tokenizer *t, const tfi_part_kind *kinds, const char *name, tfi_parts *parts, tfi_part **out);
int tfi_part_is(const tfi_part *part, const char *name);
void tfi_part_set_mark(tfi_part *part, uint32_t mark);

/* Readers of settings that several kinds have. */
tf_status tfi_part_string(struct tf_tokenizer *t, const struct tfi_json *json, const char *key, int is_needed, tfi_string *out);
tf_status tfi_part_pattern(struct tf_tokenizer *t, const struct tfi_json *json, tfi_part *part);
tf_status tfi_part_behavior(const struct tfi_json *json, tfi_part *part);
tf_status tfi_part_metaspace(struct tf_tokenizer *t, const struct tfi_json *json, tfi_part *part);
tf_status tfi_part_char(const struct tfi_json *json, const char *key, tfi_part *part);

/* pipeline.c: append the tokens of text[begin, end), which is not empty and has no added tokens. OK, NOMEM, INVALID (a pattern's
 * limit, an unknown word where there is no token for it). */
tf_status tfi_pipeline_segment(struct tfi_reading *x, uint32_t begin, uint32_t end);

#endif
