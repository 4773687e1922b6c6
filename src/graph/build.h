/* Building a graph: one helper an op, which checks shapes and dtypes at once. The helpers choose fused forms (bias, activation
 * and residual inside LINEAR, the residual inside NORM), so every backend sees them.
 *
 * Errors stick: after the first failure every helper returns -1 and does nothing, tfi_build_finish() gives the status. A
 * family builder is therefore a plain list of calls. The texts name the value that was being built. */
#ifndef TFI_GRAPH_BUILD_H
#define TFI_GRAPH_BUILD_H

#include "backend/ops.h"
#include "base/memory.h"

typedef struct tfi_builder {
    tfi_arena *arena;  /* the finished graph lives here */
    tfi_memory *memory;
    tfi_graph graph;
    int32_t value_room, op_room, weight_room;
    tf_status status;
} tfi_builder;

void tfi_build_begin(tfi_builder *b, tfi_arena *arena, tfi_memory *memory);

/* Move the graph to the arena. OK, or the first failure; either way the builder holds nothing afterwards. */
tf_status tfi_build_finish(tfi_builder *b, tfi_graph *out);

/* Record a failure met outside (a missing tensor); keeps the first. */
void tfi_build_fail(tfi_builder *b, tf_status status);

/* Add a weight. A second one with the same first tensor and shape is the same weight, so that a tied table has one form. The
 * name is copied, the tensors are borrowed until the weights are loaded; `readers` starts at 0 and is filled by the ops. */
int32_t tfi_build_weight(tfi_builder *b, const tfi_weight *w);

/* [R, E] from ids or input embeddings; positions and types are tables or -1. */
int32_t tfi_build_embed(tfi_builder *b, const char *name, int32_t word, int32_t positions, int32_t types, tfi_dtype dtype);

/* Normalised x, or x + residual when residual is not -1. */
int32_t tfi_build_norm(tfi_builder *b, const char *name, int32_t x, int32_t residual, int32_t gain, int32_t bias, float eps,
                       tfi_dtype dtype);

/* activation(x W^T + bias) + residual; bias and residual may be -1. */
int32_t tfi_build_linear(tfi_builder *b, const char *name, int32_t x, int32_t weight, int32_t bias, tfi_activation activation,
                         int32_t residual, tfi_dtype dtype);

/* Self-attention of a fused [R, 3 * heads * head_size] value; the result has its dtype. */
int32_t tfi_build_attention(tfi_builder *b, const char *name, int32_t qkv, int32_t heads, int32_t head_size, float scale);

int32_t tfi_build_gather(tfi_builder *b, const char *name, int32_t x);
int32_t tfi_build_pool(tfi_builder *b, const char *name, int32_t x, int32_t pooling, tfi_dtype dtype);
int32_t tfi_build_l2norm(tfi_builder *b, const char *name, int32_t x, float eps);

/* Let a value survive into resumed runs. */
void tfi_build_keep(tfi_builder *b, int32_t value);

#endif
