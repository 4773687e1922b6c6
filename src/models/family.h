/* What every family builder works with: the checkpoint's config and tensors, the names real checkpoints use for the same
 * thing, and the graph under construction. */
#ifndef TFI_MODELS_FAMILY_H
#define TFI_MODELS_FAMILY_H

#include "graph/build.h"
#include "models/config.h"
#include "models/model.h"

typedef struct tfi_family {
    const tfi_source *source;
    tfi_json config;    /* config.json */
    const char *prefix; /* of the encoder's tensors, such as "bert."; names are tried with and without it */
    tfi_dtype dtype;    /* of matrices, and of activations that matrices read */
    tfi_arena *arena;
    tfi_builder build;
    int has_step; /* tfi_family_step was called: two graphs are under construction */
    tfi_model *model;
} tfi_family;

enum { TFI_NAME_BYTES = 256 };

/* The tensor or value name of layer `layer`: a format of this library's own with one %d. */
const char *tfi_family_name(char text[TFI_NAME_BYTES], const char *format, int layer);

/* The tensor of this name: with the prefix, without it, and each with LayerNorm's old .gamma and .beta for .weight and .bias.
 * NULL if there is none. */
const tfi_tensor *tfi_family_find(const tfi_family *f, const char *name);

/* A weight of the graph; a missing tensor or another shape fails the builder, naming the tensor. rows or cols 0: any. */
int32_t tfi_family_matrix(tfi_family *f, const char *name, int64_t rows, int64_t cols, tfi_shard shard);
int32_t tfi_family_vector(tfi_family *f, const char *name, int64_t cols);
int32_t tfi_family_scaled_vector(tfi_family *f, const char *name, int64_t cols, float scale); /* 1: as it is */

/* A table of relative position biases, [r->buckets, heads]. */
int32_t tfi_family_relative(tfi_family *f, const char *name, int64_t heads, const tfi_relative *r);

/* The matrix [rows, cols] whose tensor is stored [cols, rows]: what transformers calls Conv1D. */
int32_t tfi_family_transposed(tfi_family *f, const char *name, int64_t rows, int64_t cols, tfi_shard shard);

/* `count` matrices of equal shape [rows, cols] stacked as one, and their biases; at most TFI_WEIGHT_PARTS. */
int32_t tfi_family_stack(tfi_family *f, const char *const *names, int count, int64_t rows, int64_t cols, tfi_shard shard);
int32_t tfi_family_stack_bias(tfi_family *f, const char *const *names, int count, int64_t cols);

/* The matrix over the vocabulary: its own tensor where the file has one (transformers 5 unties then), else the word table if
 * `tied`. One weight if both are the same. */
int32_t tfi_family_head_matrix(tfi_family *f, const char *own, const char *table, int tied, int64_t rows, int64_t cols);

/* x W^T + b with the tensors `name`.weight and `name`.bias. */
int32_t tfi_family_linear(tfi_family *f, const char *value, int32_t x, const char *name, int64_t outputs,
                          tfi_activation activation, tfi_shard shard, tfi_dtype dtype);

/* Layer norm with `name`.weight and `name`.bias over x + residual. */
int32_t tfi_family_norm(tfi_family *f, const char *value, int32_t x, int32_t residual, const char *name, float eps,
                        tfi_dtype dtype);

int64_t tfi_family_cols(const tfi_family *f, int32_t value); /* 0 after a failure */

/* architectures[0], or `otherwise` where config.json has none; also into model->architecture. NULL: the builder has failed. */
const char *tfi_family_class(tfi_family *f, const char *otherwise);
void tfi_family_refuse_class(tfi_family *f, const char *name);

/* Names of the labels and the problem_type of a classifier, into the model. */
void tfi_family_labels(tfi_family *f);

/* Pooling, dense layers and normalisation behind the last hidden state `final`, as modules.json describes them: the task EMBED.
 * first: of each sequence's first token, or -1. */
void tfi_family_embedding(tfi_family *f, const tfi_sentence *sentence, int32_t final, int32_t first);

/* The model's graph is complete: what follows is its step. */
void tfi_family_step(tfi_family *f);

/* One per family in its own file: fill f->model and the graph. They report failures through the builder. */
typedef struct tfi_family_entry {
    const char *model_type;
    void (*build)(tfi_family *f, const tfi_sentence *sentence);
} tfi_family_entry;

void tfi_bert_build(tfi_family *f, const tfi_sentence *sentence);
void tfi_gpt2_build(tfi_family *f, const tfi_sentence *sentence);
void tfi_t5_build(tfi_family *f, const tfi_sentence *sentence);

#endif
