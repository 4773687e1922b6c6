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

/* Close a graph and begin the model's next one, which has the same weights: *out is whole after tfi_build_finish. */
void tfi_build_next(tfi_builder *b, tfi_graph *out);

/* Move the last graph to the arena. OK, or the first failure; either way the builder holds nothing afterwards. `before`: the graph that
 * tfi_build_next closed, or NULL; it gets the common list of weights. */
tf_status tfi_build_finish(tfi_builder *b, tfi_graph *before, tfi_graph *out);

/* Record a failure met outside (a missing tensor); keeps the first. */
void tfi_build_fail(tfi_builder *b, tf_status status);

/* Add a weight. A second one with the same first tensor, shape and scale is the same weight, so that a tied table has one form. The
 * name is copied, the tensors are borrowed until the weights are loaded; `readers` starts at 0 and is filled by the ops. */
int32_t tfi_build_weight(tfi_builder *b, const tfi_weight *w);

/* [R, E] from ids or input embeddings; positions and types are tables or -1. */
int32_t tfi_build_embed(tfi_builder *b, const char *name, int32_t word, int32_t positions, int32_t types, tfi_dtype dtype);

/* Normalised x, or x + residual when residual is not -1. RMS: bias is -1. */
int32_t tfi_build_rms_norm(tfi_builder *b, const char *name, int32_t x, int32_t residual, int32_t gain, float eps, tfi_dtype dtype);
int32_t tfi_build_norm(tfi_builder *b, const char *name, int32_t x, int32_t residual, int32_t gain, int32_t bias, float eps,
                       tfi_dtype dtype);

/* activation(x W^T + bias) + residual; bias and residual may be -1. */
int32_t tfi_build_linear(tfi_builder *b, const char *name, int32_t x, int32_t weight, int32_t bias, tfi_activation activation,
                         int32_t residual, tfi_dtype dtype);

/* activation(left half of x) * right half. */
int32_t tfi_build_glu(tfi_builder *b, const char *name, int32_t x, tfi_activation activation, tfi_dtype dtype);

typedef struct tfi_attention_spec {
    tfi_attend attend;
    int32_t layer;            /* of the KV store, for CACHE and SOURCE */
    int32_t heads, head_size;
    float scale;
    int32_t bias;             /* weight with `relative`, or -1 */
} tfi_attention_spec;

/* Attention of x [R, 3 * heads * head_size] (Q, K, V fused), or from the store of any x that begins with Q; has x's dtype.
 * CACHE appends x's keys and values first. */
int32_t tfi_build_attention(tfi_builder *b, const char *name, int32_t x, const tfi_attention_spec *spec);

/* Keep the keys and values of x (K from `column` on, V behind) for the layer of the store that SOURCE attention reads. */
void tfi_build_keep_source(tfi_builder *b, int32_t x, int32_t layer, int32_t heads, int32_t head_size, int32_t column);

/* Copy blocks of the store before anything reads them; the first op of a graph with CACHE attention. */
void tfi_build_kv_copy(tfi_builder *b);

/* What follows a step's logits [S, V] (F32): log-probability of given targets, and constrain, warp, draw. */
typedef struct tfi_draw_values {
    int32_t logprob, constrained, warped;
} tfi_draw_values;
void tfi_build_draw(tfi_builder *b, int32_t logits, tfi_draw_values *out);

/* Selected rows of x, or the one row that stands for each sequence. */
int32_t tfi_build_gather(tfi_builder *b, const char *name, int32_t x);
int32_t tfi_build_gather_last(tfi_builder *b, const char *name, int32_t x);
int32_t tfi_build_pool(tfi_builder *b, const char *name, int32_t x, int32_t pooling, tfi_dtype dtype);
int32_t tfi_build_l2norm(tfi_builder *b, const char *name, int32_t x, float eps);

/* Let a value survive into resumed runs. */
void tfi_build_keep(tfi_builder *b, int32_t value);

#endif
