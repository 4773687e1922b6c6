/* What a sentence-transformers directory says around its transformer: where it lies, how tokens become one vector, prompts,
 * the length limit. A directory without modules.json means: mean over tokens, not normalised. */
#ifndef TFI_MODELS_SENTENCE_H
#define TFI_MODELS_SENTENCE_H

#include "backend/ops.h"
#include "base/memory.h"
#include "io/source.h"

enum { TFI_SENTENCE_DENSE = 4 };

typedef struct tfi_dense {
    char path[TFI_FOLDER_MAX];  /* the module's folder */
    int32_t inputs, outputs;
    int bias, use_residual;
    tfi_activation activation;
    tfi_source source;          /* linear.weight, linear.bias, residual.weight */
} tfi_dense;

typedef struct tfi_sentence {
    char transformer_path[TFI_FOLDER_MAX]; /* folder of the transformer's files, "" for the directory itself */
    int32_t pooling;            /* a list of TFI_POOL_ kinds */
    int32_t pooled_width;       /* of the token embeddings, as the pooling module says; 0: not said */
    int include_prompt;
    int32_t dense_count;
    tfi_dense dense[TFI_SENTENCE_DENSE];
    int normalize;
    int32_t max_tokens;         /* 0: not said */
    int lowercase;              /* texts are lower-cased before they reach the tokenizer */
    int32_t prompts, default_prompt;
    const char **prompt_names, **prompt_texts;
} tfi_sentence;

/* Read modules.json and what it names among the files of a checkpoint. Opens the dense modules' sources:
 * tfi_sentence_close() closes them, also after a failure. Strings live in `arena`. */
tf_status tfi_sentence_read(tfi_sentence *s, const tfi_files *files, tfi_arena *arena, tfi_memory *memory);
void tfi_sentence_close(tfi_sentence *s);

#endif
