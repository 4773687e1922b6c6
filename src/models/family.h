/* What every family builder works with: the checkpoint's config and tensors, the names real checkpoints use for the same
 * thing, and the graph under construction. */
#ifndef TFI_MODELS_FAMILY_H
#define TFI_MODELS_FAMILY_H

#include "graph/build.h"
#include "models/config.h"
#include "models/model.h"

typedef struct tfi_family {
    const tfi_source *source;
    tfi_json config;          /* config.json */
    const char *prefix;       /* of the encoder's tensors, such as "bert."; names are tried with and without it */
    tfi_dtype dtype;          /* of matrices, and of activations that matrices read */
    tfi_arena *arena;
    tfi_builder build;
    tfi_model *model;
} tfi_family;

/* The tensor of this name: with the prefix, without it, and each with LayerNorm's old .gamma and .beta for .weight and .bias.
 * NULL if there is none. */
const tfi_tensor *tfi_family_find(const tfi_family *f, const char *name);

/* A weight of the graph; a missing tensor or another shape fails the builder, naming the tensor. rows or cols 0: any. */
int32_t tfi_family_matrix(tfi_family *f, const char *name, int64_t rows, int64_t cols, tfi_shard shard);
int32_t tfi_family_vector(tfi_family *f, const char *name, int64_t cols);

/* Three matrices of equal shape [rows, cols] stacked as one, and their biases. */
int32_t tfi_family_stack(tfi_family *f, const char *const names[3], int64_t rows, int64_t cols);
int32_t tfi_family_stack_bias(tfi_family *f, const char *const names[3], int64_t cols);

/* x W^T + b with the tensors `name`.weight and `name`.bias. */
int32_t tfi_family_linear(tfi_family *f, const char *value, int32_t x, const char *name, int64_t outputs, tfi_activation activation,
                          tfi_shard shard, tfi_dtype dtype);

/* Layer norm with `name`.weight and `name`.bias over x + residual. */
int32_t tfi_family_norm(tfi_family *f, const char *value, int32_t x, int32_t residual, const char *name, float eps, tfi_dtype dtype);

int64_t tfi_family_cols(const tfi_family *f, int32_t value); /* 0 after a failure */

/* One per family in its own file: fill f->model and the graph. They report failures through the builder. */
typedef struct tfi_family_entry {
    const char *model_type;
    void (*build)(tfi_family *f, const tfi_sentence *sentence);
} tfi_family_entry;

void tfi_bert_build(tfi_family *f, const tfi_sentence *sentence);

#endif
