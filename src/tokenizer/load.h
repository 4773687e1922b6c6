/* Between load.c (which files, which settings) and the readers of the two file formats. */
#ifndef TFI_TOKENIZER_LOAD_H
#define TFI_TOKENIZER_LOAD_H

#include "base/json_list.h"
#include "tokenizer/spm.h"
#include "tokenizer/tokenizer.h"

/* One member of a vocabulary; text belongs to the file or JSON tree it was read from. NULL: a later line took its place. */
typedef struct tfi_entry {
    const char *text;
    uint32_t size;
    int32_t id;
} tfi_entry;

/* A vocabulary while it is read. Zero-initialise, set memory. */
enum { TFI_LIST_VOCAB, TFI_LIST_MERGES, TFI_LISTS };
typedef struct tfi_entries {
    tfi_memory *memory;
    tfi_entry *data;
    size_t count, capacity;
    /* model.vocab of a tokenizer.json, or all of a vocab.json, and model.merges, which the trees do not have. */
    tfi_json_list lists[TFI_LISTS];
} tfi_entries;

void tfi_entries_close(tfi_entries *e);

/* Whose rules hold. */
typedef enum tfi_rules {
    TFI_RULES_WHOLE,
    TFI_RULES_BERT,
    TFI_RULES_ROBERTA,
    TFI_RULES_GPT2,
    TFI_RULES_T5,
    TFI_RULES_XLM_ROBERTA,
    TFI_RULES_CAMEMBERT,
    TFI_RULES_ALBERT,
    TFI_RULES_BYT5,
    TFI_RULES_BERT_JAPANESE,
    TFI_RULES_SPM, /* a .model file's own, with T5's special tokens around the text if a class asks for them */
    TFI_RULES_COUNT
} tfi_rules;

/* The named special tokens, in the order in which they are added. */
enum { TFI_BOS, TFI_EOS, TFI_UNK, TFI_SEP, TFI_PAD, TFI_CLS, TFI_MASK, TFI_NAMED };

/* A .model file that was found good. */
typedef struct tfi_spm_file {
    tfi_file file; /* data NULL: there is none */
    const char *name;
    tfi_spm spm;
} tfi_spm_file;

/* How a class lays out the ids over the pieces of a .model file. */
typedef struct tfi_spm_layout {
    const struct tfi_spm_head {
        const char *text;
        double score;
    } * head; /* go first */
    int32_t head_count;
    int32_t skip;      /* pieces of the file that are left out */
    const char *last;  /* goes behind them, or NULL */
    int32_t extra_ids; /* <extra_id_n-1> ... <extra_id_0> go behind that */
} tfi_spm_layout;

/* The files of an opening, parsed. json_t members may be NULL. */
typedef struct tfi_loading {
    tf_tokenizer *t;
    const tfi_files *files;
    const char *mecab_dictionary; /* NULL: none */
    tfi_json config;              /* tokenizer_config.json */
    tfi_json model;               /* config.json */
    tfi_json tokens;              /* tokenizer.json */
    tfi_file pieces_file;         /* tokenizer.json or vocab.json: entries.lists and so entries lie in it */
    tfi_json special_map;         /* special_tokens_map.json */
    tfi_json added;               /* added_tokens.json */
    tfi_file vocab;               /* vocab.txt; data NULL if there is none */
    const char *vocab_name;
    tfi_json bpe_vocab; /* vocab.json or encoder.json */
    tfi_file merges;    /* merges.txt or vocab.bpe; data NULL if there is none */
    const char *merges_name;
    tfi_spm_file spm;
    tfi_rules rules;
    int is_class; /* a directory's rules, not those of a file alone */
    int is_guess; /* rules: no file names a class, or a model type that has one */
    tfi_entries entries;
    tfi_added names[TFI_NAMED];    /* text NULL: not named */
    uint8_t given[TFI_NAMED];      /* named by a file, not by the class */
    struct tfi_declared *declared; /* added tokens with the ids they claim, which decide the order only */
    size_t declared_count, declared_capacity;
} tfi_loading;

struct tfi_declared {
    int64_t id;
    size_t order;
    tfi_added token;
};

/* load_added.c */

/* The keys of the named special tokens, and what a class has where the configuration says nothing. */
extern const struct tfi_named {
    const char *key, *own[TFI_RULES_COUNT];
} tfi_named[TFI_NAMED];

/* Special tokens by name into l->names. */
tf_status tfi_read_names(tfi_loading *l, int with_map);
/* All added tokens in the reference's order; needs names and vocabulary. */
tf_status tfi_add_tokens(tfi_loading *l, int legacy);

/* vocab.txt: one token a line, ids are line numbers from 0, a repeated token has its last one. Fills t->vocab too. trims: white space
 * at a line's end is not part of it. */
tf_status tfi_read_vocab_txt(tf_tokenizer *t, const tfi_file *file, const char *name, int trims, tfi_entries *out);

/* {"token": id, ...}, a file's root or a member of it. Fills t->vocab too. */
tf_status tfi_read_vocab_json(tf_tokenizer *t, const char *file, tfi_entries *out);

/* Is the list there, an object or an array, and valid UTF-8? `key` names it. OK or CORRUPT. */
tf_status tfi_check_list(const tfi_json_list *list, const char *file, const char *key, int is_object);
/* The same of the vocabulary; makes room for its members. */
tf_status tfi_open_vocab(tfi_entries *out, const char *file, int is_object);
/* A string: where the file has it, or what its escapes stand for. */
tf_status tfi_list_text(tf_tokenizer *t, const tfi_json_text *text, tfi_entry *out);

/* load_japanese.c: BertJapaneseTokenizer's settings and dictionary. */
tf_status tfi_read_japanese(tfi_loading *l);

/* The bytes that are ByT5's vocabulary. */
tf_status tfi_read_byt5(tfi_loading *l);

/* merges.txt: two tokens a line, the first line goes first. Needs the vocabulary. */
tf_status tfi_read_merges_txt(tf_tokenizer *t, const tfi_file *file, const char *name);

/* tokenizer.json's model: its vocabulary with the merges, and with `whole` its settings. Says in t->model which kind it is. */
tf_status tfi_read_json_model(tf_tokenizer *t, tfi_json root, int whole, const char **unk, tfi_entries *out);
tf_status tfi_read_bpe_model(tf_tokenizer *t, tfi_json model, int whole, tfi_entries *out);
/* load_unigram.c: tokenizer.json's model and the charsmap that a class takes from its normalizer. */
tf_status tfi_read_unigram_model(tf_tokenizer *t, tfi_json model, int whole, tfi_entries *out);
tf_status tfi_read_class_charsmap(tf_tokenizer *t, tfi_json root);
/* The setting "precompiled_charsmap". */
tf_status tfi_charsmap_read(tf_tokenizer *t, tfi_json json, tfi_charsmap *map);
void tfi_unigram_mark(tfi_unigram *u, const tfi_part *metaspace);
/* A .model file's pieces and map. */
tf_status tfi_read_spm_vocab(tf_tokenizer *t, const tfi_spm_file *f, const tfi_spm_layout *layout, tfi_entries *out);
/* The pipeline that T5's, XLM-R's and CamemBERT's classes build; after model and map. */
tf_status tfi_unigram_class(tf_tokenizer *t, int prefix_space);
/* Both of these, and libsentencepiece's rules where they hold, for a class. */
tf_status tfi_read_unigram_class(tfi_loading *l);
/* How many <extra_id_n> a class adds by itself. */
tf_status tfi_extra_ids(const tfi_loading *l, int32_t *count);
/* libsentencepiece's rules instead; after the vocabulary, which is laid out as the file is. */
tf_status tfi_spm_rules(tf_tokenizer *t, const tfi_spm_file *f);
/* Its control pieces and the unknown one are special; after the strings by id. */
void tfi_spm_mark_special(tf_tokenizer *t, const tfi_spm_file *f);
/* After all of that: what encoding looks up. `file` is for error texts. */
tf_status tfi_unigram_finish(tf_tokenizer *t, const char *file);

/* All else of a tokenizer.json that stands for itself: normalizer, pre-tokenizer, decoder. */
tf_status tfi_read_json_pipeline(tf_tokenizer *t, tfi_json root);
/* Its post-processor; needs the vocabulary. */
tf_status tfi_read_json_template(tf_tokenizer *t, tfi_json root);

/* An added token written as a string or as an object with a content. special_default: what a missing "special" means. */
tf_status tfi_read_added(const json_t *value, const char *file, const char *key, int special_default, tfi_added *out);

/* Texts with nothing around them. */
tf_status tfi_plain_template(tf_tokenizer *t);
/* The templates of RobertaProcessing. */
tf_status tfi_roberta_template(tf_tokenizer *t, int32_t cls, int32_t sep);

/* A template of `count` pieces in t's arena; counts the special ones. */
tf_status tfi_template_set(tf_tokenizer *t, tfi_template *template, const tfi_piece *pieces, int32_t count);

#endif
