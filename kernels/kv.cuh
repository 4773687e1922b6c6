/* Keys and values of the store in device memory. A block is [layers][2][heads][TFI_KV_BLOCK][D]: for a layer and head its keys,
 * token by token, and as another plane its values, so that a token's key is one contiguous read. Bytes and planes are those of
 * the host's layout (backend/host_ops.h), whose keys lie dimension by dimension instead. */
#ifndef TFI_KERNELS_KV_CUH
#define TFI_KERNELS_KV_CUH

#include "types.cuh"

struct kv_call {
    char *blocks; /* NULL: keys and values are columns of x */
    const int32_t *lens, *tables;
    int64_t block_elements; /* all layers and heads */
    int64_t layer_at;       /* elements in front of the layer's first plane */
    int64_t values_at;      /* elements from a head's keys to its values */
    tfi_dtype dtype;
    bool source; /* which of the live strides is that of tables */
};

/* Blocks of sequence b. */
__device__ inline const int32_t *kv_table(const kv_call &c, const tfi_cuda_live *live, int64_t b)
{
    return c.tables + b * (c.source ? live->source_stride : live->table_stride);
}

/* Element where the key of token `token` begins, whose block `table` names. */
__device__ inline int64_t kv_key(const kv_call &c, const int32_t *table, int64_t token, int head, int D)
{
    return table[token / TFI_KV_BLOCK] * c.block_elements + c.layer_at +
           (head * (int64_t)TFI_KV_BLOCK + token % TFI_KV_BLOCK) * D;
}

/* ---- host ---- */

inline kv_call kv_call_of(const tfi_kv_view *kv, tfi_attend attend)
{
    const tfi_store_shape *s = &kv->store->shape;
    const int64_t layer = 2 * s->heads * tfi_kv_plane(s);
    kv_call c = {};

    c.blocks = kv->store->blocks;
    c.lens = kv->lens;
    c.tables = kv->tables;
    c.block_elements = s->layers * layer;
    c.layer_at = kv->layer * layer;
    c.values_at = s->heads * tfi_kv_plane(s);
    c.dtype = s->dtype;
    c.source = attend == TFI_ATTEND_SOURCE;
    return c;
}

#endif
