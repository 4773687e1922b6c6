/* The post-norm transformer encoder that BERT, RoBERTa, DistilBERT and ELECTRA share: they differ in the names of the tensors. */
#ifndef TFI_MODELS_ENCODER_H
#define TFI_MODELS_ENCODER_H

#include "models/family.h"

/* Tensor names without ".weight" / ".bias"; those of a layer hold one %d. type and project may be NULL. */
typedef struct tfi_encoder_names {
    const char *word, *position, *type, *embed_norm, *project;
    const char *query, *key, *value, *attention_out, *attention_norm;
    const char *ffn_in, *ffn_out, *ffn_norm;
} tfi_encoder_names;

typedef struct tfi_encoder_shape {
    int32_t vocab, positions, types, layers, heads, width, embed_width, inner;
    tfi_activation activation;
    float eps;
} tfi_encoder_shape;

/* Build embeddings and layers; fills model->hidden and returns the last hidden state, or -1. *first: that of the first token of each
 * sequence alone, which the last layer's attention is the last to need others for. */
int32_t tfi_encoder_build(tfi_family *f, const tfi_encoder_names *names, const tfi_encoder_shape *shape, int32_t *first);

#endif
