/* Op functions that run on host memory: the plain-C reference of every op (src/backend/ref) and the vectorised tiers that
 * overwrite it (src/backend/cpu). One function type serves both, so that any test can set one against the other. */
#ifndef TFI_BACKEND_HOST_OPS_H
#define TFI_BACKEND_HOST_OPS_H

#include "backend/ops.h"
#include "base/memory.h"

/* The store on a host: what ops read and write directly. */
struct tfi_store {
    tfi_store_shape shape;
    tfi_memory *memory;
    char *blocks;        /* [shape.blocks, tfi_kv_block_bytes] */
    tfi_slot *slots;     /* [shape.slots] */
};

/* A block is [layers][2][heads][...]: for a layer and head first the keys [D][TFI_KV_BLOCK], dimension by dimension, so that a vector
 * holds one dimension of several keys; then, as another plane, the values [TFI_KV_BLOCK][D]. */
static inline int64_t tfi_kv_plane(const tfi_store_shape *s) /* elements of one head's keys, or values, in a block */
{
    return (int64_t)TFI_KV_BLOCK * s->head_size;
}

static inline int64_t tfi_kv_block_bytes(const tfi_store_shape *s)
{
    return 2 * (int64_t)s->layers * s->heads * tfi_kv_plane(s) * (int64_t)tfi_dtype_size(s->dtype);
}

static inline char *tfi_kv_keys(const tfi_store *st, int64_t block, int32_t layer, int32_t head)
{
    const tfi_store_shape *s = &st->shape;
    return st->blocks + block * tfi_kv_block_bytes(s) +
           (2 * (int64_t)layer * s->heads + head) * tfi_kv_plane(s) * (int64_t)tfi_dtype_size(s->dtype);
}

static inline char *tfi_kv_values(const tfi_store *st, int64_t block, int32_t layer, int32_t head)
{
    return tfi_kv_keys(st, block, layer, head + st->shape.heads);
}

/* Philox 4x32 with 10 rounds (Salmon et al. 2011): the counter's block of four random words. */
void tfi_philox(uint64_t key, const uint32_t counter[4], uint32_t out[4]);

/* The bucket of T5's table for `distance` = key - query, in the float32 arithmetic of transformers' T5Attention. */
int32_t tfi_relative_bucket(const tfi_relative *r, int32_t distance);

/* What a processor offers; an argument everywhere, so that a test can ask for any tier. */
enum {
    TFI_CPU_AVX2 = 1,        /* with FMA and F16C */
    TFI_CPU_AVX512 = 2,      /* F, BW, DQ, VL */
    TFI_CPU_AVX512_BF16 = 4
};
unsigned tfi_cpu_features(void);

/* One of several threads that call the same function with the same arguments at the same time: each does its share. */
typedef struct tfi_worker {
    int index, count;    /* index in [0, count) */
    void *scratch;       /* of this worker alone, 64-byte aligned, tfi_host_scratch() bytes */
} tfi_worker;

/* args points to the argument struct of the op's kind. */
typedef void (*tfi_host_fn)(const void *args, const tfi_worker *w);

/* Operand types a function is resolved for; operands an op lacks are TFI_F32. For EMBED x is the tables' type. */
typedef struct tfi_op_types {
    tfi_dtype x, residual, y;
} tfi_op_types;

/* The reference: every op kind, any of F32 and BF16 for each operand; NULL for other types. LINEAR reads layout 0 only. */
tfi_host_fn tfi_ref_resolve(tfi_op_kind kind, tfi_op_types types);

/* The fastest function for these features; falls back to the reference. LINEAR is not here: src/backend/cpu/linear.h. */
tfi_host_fn tfi_cpu_resolve(tfi_op_kind kind, tfi_op_types types, unsigned features);

/* Scratch bytes a worker needs for `op` when no sequence has more than max_rows rows in a run, nor more than max_tokens in the store; 0
 * for most. */
int64_t tfi_host_scratch(const tfi_graph *g, const tfi_op *op, int64_t max_rows, int64_t max_tokens);

#endif
