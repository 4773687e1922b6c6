/* Between load.c (which files, which settings) and the readers of the two file formats. */
#ifndef TFI_TOKENIZER_LOAD_H
#define TFI_TOKENIZER_LOAD_H

#include "base/json.h"
#include "tokenizer/tokenizer.h"

/* One member of a vocabulary; text belongs to the file or JSON tree it was read from. NULL: a later line took its place. */
typedef struct tfi_entry {
    const char *text;
    uint32_t size;
    int32_t id;
} tfi_entry;

/* A vocabulary while it is read. Zero-initialise, set memory. */
typedef struct tfi_entries {
    tfi_memory *memory;
    tfi_entry *data;
    size_t count, capacity;
} tfi_entries;

void tfi_entries_close(tfi_entries *e);

/* vocab.txt: one token a line, ids are line numbers from 0, a repeated token has its last one. Fills t->vocab too. */
tf_status tfi_read_vocab_txt(tf_tokenizer *t, const tfi_file *file, const char *name, tfi_entries *out);

/* {"token": id, ...}, a file's root or a member of it. Fills t->vocab too. */
tf_status tfi_read_vocab_json(tf_tokenizer *t, const json_t *vocab, const char *file, tfi_entries *out);

/* merges.txt: two tokens a line, the first line goes first. Needs the vocabulary. */
tf_status tfi_read_merges_txt(tf_tokenizer *t, const tfi_file *file, const char *name);

/* tokenizer.json's model: its vocabulary with the merges, and with `whole` its settings. Says in t->is_bpe which kind it is. */
tf_status tfi_read_json_model(tf_tokenizer *t, tfi_json root, int whole, const char **unk, tfi_entries *out);
tf_status tfi_read_bpe_model(tf_tokenizer *t, tfi_json model, int whole, tfi_entries *out);
/* All else of a tokenizer.json that stands for itself: normalizer, pre-tokenizer, decoder. */
tf_status tfi_read_json_pipeline(tf_tokenizer *t, tfi_json root);
/* Its post-processor; needs the vocabulary. */
tf_status tfi_read_json_template(tf_tokenizer *t, tfi_json root);

/* An added token written as a string or as an object with a content. special_default: what a missing "special" means. */
tf_status tfi_read_added(const json_t *value, const char *file, const char *key, int special_default, tfi_added *out);

/* The templates of RobertaProcessing. */
tf_status tfi_roberta_template(tf_tokenizer *t, int32_t cls, int32_t sep);

/* A template of `count` pieces in t's arena; counts the special ones. */
tf_status tfi_template_set(tf_tokenizer *t, tfi_template *template, const tfi_piece *pieces, int32_t count);

#endif
