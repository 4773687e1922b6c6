/* The op vocabulary: values, weights and ops of a graph, and the argument struct of each op's functions. Everything above
 * (src/graph builds and checks graphs, src/models decides what is in them) and below (backends execute them) meets here.
 *
 * Letters, here and everywhere: R token rows of all sequences packed one behind the other, B sequences, S selected rows,
 * E width, H heads, D head size, F inner width, V vocabulary. All matrices are row-major; rows are never padded. */
#ifndef TFI_BACKEND_OPS_H
#define TFI_BACKEND_OPS_H

#include <stdint.h>

#include "base/dtype.h"
#include "io/source.h"

/* ---- values: activations [rows, cols]; the row count is one of these symbols, known when the graph runs ---- */

typedef enum tfi_rows { TFI_ROWS_TOKENS, TFI_ROWS_SEQUENCES, TFI_ROWS_SELECTED, TFI_ROWS_COUNT } tfi_rows;

typedef struct tfi_value {
    const char *name; /* unique in the graph, for the printer and error texts */
    tfi_dtype dtype;  /* F32 or BF16; each value has its own */
    tfi_rows rows;
    int64_t cols;
    int keep;         /* survives until the next run that computes it, so that a resumed run can start from it */
} tfi_value;

/* ---- graph inputs: host arrays given with each run ---- */

typedef enum tfi_input_id {
    TFI_INPUT_IDS,        /* int32 [R]; NULL if EMBEDDINGS is given */
    TFI_INPUT_EMBEDDINGS, /* float [R, E]; NULL if IDS is given */
    TFI_INPUT_POSITIONS,  /* int32 [R] rows of the position table */
    TFI_INPUT_TYPES,      /* int32 [R] rows of the type table */
    TFI_INPUT_OFFSETS,    /* int32 [B + 1] first token row of each sequence, ends with R */
    TFI_INPUT_SELECTED,   /* int32 [S] token rows */
    TFI_INPUT_SKIP,       /* int32 [1] leading tokens of each sequence that POOL leaves out; NULL: none */
    TFI_INPUT_COUNT
} tfi_input_id;

/* ---- weights ---- */

/* How a weight would be split over several devices; fused matrices are sliced inside each part. */
typedef enum tfi_shard { TFI_SHARD_NONE, TFI_SHARD_COLUMN, TFI_SHARD_ROW, TFI_SHARD_HEADS, TFI_SHARD_VOCAB } tfi_shard;

/* Who reads a weight; a tied embedding has two bits set and still one resident form. */
enum { TFI_READ_LINEAR = 1, TFI_READ_ROWS = 2, TFI_READ_VECTOR = 4 };

enum { TFI_WEIGHT_PARTS = 3 };

typedef struct tfi_weight {
    const char *name;     /* of the first part's tensor */
    int64_t rows, cols;   /* logical: a LINEAR computes x W^T with W [rows = outputs, cols = inputs]; a table has a row an id; a
                             vector is [1, cols] */
    tfi_dtype dtype;      /* of the resident form; vectors are F32 */
    int transposed;       /* parts are stored [inputs, outputs] */
    int readers;          /* TFI_READ_ bits of all ops that read it */
    tfi_shard shard;
    int parts;            /* stacked along rows (a vector's along cols); Q, K, V of one projection are three */
    const tfi_tensor *part[TFI_WEIGHT_PARTS]; /* NULL: zeros (a bias that the checkpoint lacks) */
    int64_t part_rows[TFI_WEIGHT_PARTS];      /* rows (cols of a vector) of each; they sum up */
} tfi_weight;

/* The one resident form of a weight. The backend says what it will be (layout, bytes); whoever loads provides the memory. */
typedef struct tfi_weight_form {
    int32_t layout;   /* the backend's own numbering; 0 is plain row-major */
    int64_t bytes;
    void *data;       /* 64-byte aligned, in the backend's memory */
} tfi_weight_form;

/* ---- ops ---- */

typedef enum tfi_activation {
    TFI_ACT_NONE, TFI_ACT_RELU, TFI_ACT_GELU /* erf */, TFI_ACT_GELU_TANH, TFI_ACT_SILU, TFI_ACT_TANH, TFI_ACT_SIGMOID, TFI_ACT_COUNT
} tfi_activation;

/* A way to make one vector of a sequence. Several are concatenated: a list of them is an octal number, the first in its lowest
 * digit, so that walking it is `for (int32_t p = list; p; p >>= 3)` with the kind p & 7. */
enum { TFI_POOL_CLS = 1, TFI_POOL_MAX, TFI_POOL_MEAN, TFI_POOL_MEAN_SQRT, TFI_POOL_WEIGHTED, TFI_POOL_LAST, TFI_POOL_LIST_MAX = 10 };

typedef enum tfi_op_kind {
    TFI_OP_EMBED, TFI_OP_NORM, TFI_OP_LINEAR, TFI_OP_ATTENTION, TFI_OP_GATHER_ROWS, TFI_OP_POOL, TFI_OP_L2NORM, TFI_OP_COUNT
} tfi_op_kind;

/* An op of a graph: operands are indices into the graph's values and weights, -1 for none. What they mean for each kind is in
 * the argument struct of the same name below. */
typedef struct tfi_op {
    tfi_op_kind kind;
    int32_t x, residual, y;       /* values */
    int32_t weight, bias;         /* weights: matrix and bias of LINEAR, gain and bias of NORM, word table of EMBED */
    int32_t positions, types;     /* weights: tables of EMBED */
    tfi_activation activation;    /* LINEAR */
    float eps;                    /* NORM, L2NORM */
    int32_t heads, head_size;     /* ATTENTION */
    float scale;                  /* ATTENTION */
    int32_t pooling;              /* POOL: a list of TFI_POOL_ kinds */
} tfi_op;

typedef struct tfi_graph {
    tfi_value *values;
    tfi_op *ops; /* in execution order: every value is written by one op before it is read */
    tfi_weight *weights;
    int32_t value_count, op_count, weight_count;
} tfi_graph;

/* ---- what an op's functions are called with: the op's meaning. Live row counts; pointers in the backend's memory.
 *      dtypes of operands are fixed when the function is resolved. ---- */

/* y[r] = word[ids[r]] (or embeddings[r]) + positions[position_ids[r]] + types[type_ids[r]]; sums in fp32 */
typedef struct tfi_embed_args {
    const int32_t *ids, *position_ids, *type_ids;
    const float *embeddings;              /* [R, E] or NULL */
    const tfi_weight *word_weight;
    const tfi_weight_form *word;          /* [V, E] in its resident form, maybe a LINEAR's */
    const void *positions, *types;        /* [*, E] row-major in the dtype of word's weight, or NULL */
    void *y;                              /* [R, E] */
    int64_t R, E;
} tfi_embed_args;

/* y = (z - mean(z)) / sqrt(var(z) + eps) * gain + bias with z = x + residual; statistics in fp32 over E (Ba et al. 2016) */
typedef struct tfi_norm_args {
    const void *x, *residual;             /* [R, E]; residual may be NULL */
    const float *gain, *bias;             /* [E] */
    void *y;                              /* [R, E]; may alias x or residual */
    int64_t R, E;
    float eps;
} tfi_norm_args;

/* y = act(x W^T + b) + residual; accumulates in fp32 */
typedef struct tfi_linear_args {
    const void *x;                        /* [M, K] */
    const tfi_weight *weight;             /* [N, K] */
    const tfi_weight_form *form;
    const float *bias;                    /* [N] or NULL */
    const void *residual;                 /* [M, N] in y's dtype, or NULL */
    void *y;                              /* [M, N]; aliases nothing */
    int64_t M, N, K;
    tfi_activation activation;
} tfi_linear_args;

/* Self-attention inside each sequence: y = softmax(scale * q k^T) v for each head, over all keys of the row's own sequence.
 * A row of qkv holds H*D of Q, then of K, then of V. Softmax and sums in fp32. */
typedef struct tfi_attention_args {
    const void *qkv;                      /* [R, 3*H*D] */
    const int32_t *offsets;               /* [B + 1] */
    void *y;                              /* [R, H*D] */
    int64_t R, B;
    int32_t H, D;                         /* any D in [1, 256] */
    float scale;
} tfi_attention_args;

/* y[s] = x[rows[s]] */
typedef struct tfi_gather_args {
    const void *x;                        /* [R, E] */
    const int32_t *rows;                  /* [S] */
    void *y;                              /* [S, E], x's dtype */
    int64_t S, E;
} tfi_gather_args;

/* One vector a sequence, over its tokens from number `skip` on, of which there is at least one: the poolings of `pooling`,
 * concatenated. CLS is the first of these tokens. MEAN_SQRT divides by the square root of their number, WEIGHTED weighs token i of
 * the whole sequence (from 0) with i + 1. Sums in fp32. */
typedef struct tfi_pool_args {
    const void *x;                        /* [R, E] */
    const int32_t *offsets;               /* [B + 1] */
    void *y;                              /* [B, n*E], n kinds in pooling */
    int64_t B, E;
    int32_t pooling;
    int32_t skip;
} tfi_pool_args;

/* y = x / max(|x|_2, eps) */
typedef struct tfi_l2norm_args {
    const void *x;                        /* [R, E] */
    void *y;                              /* [R, E]; may alias x */
    int64_t R, E;
    float eps;
} tfi_l2norm_args;

#endif
