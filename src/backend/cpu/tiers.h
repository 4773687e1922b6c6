/* The vectorised tiers: the same templates (*_tmpl.h) compiled over AVX2 with FMA, and over AVX-512. */
#ifndef TFI_BACKEND_CPU_TIERS_H
#define TFI_BACKEND_CPU_TIERS_H

#include "backend/host_ops.h"

/* types are F32 or BF16; NULL where the tier below is as good. */
tfi_host_fn tfi_avx2_resolve(tfi_op_kind kind, tfi_op_types types);
tfi_host_fn tfi_avx512_resolve(tfi_op_kind kind, tfi_op_types types);
tfi_host_fn tfi_avx512_bf16_resolve(tfi_op_kind kind, tfi_op_types types); /* attention of BF16 alone */

/* Attention's blocks, the same in every tier (attention_tmpl.h says why these). */
enum {
    TFI_ATTENTION_ROWS = 48,  /* query rows at a time */
    TFI_ATTENTION_KEYS = 512, /* keys at a time */
    TFI_ATTENTION_PAD = 64    /* packed keys and values are padded to multiples of this at most */
};

/* Floats of a worker's scratch, in this order: packed keys, packed values, then for a block of rows the queries, scores,
 * outputs, the bias of all distances in it, and the running maximum and sum. */
typedef struct tfi_attention_layout {
    int64_t keys, values, queries, scores, outputs, bias, max, sum, total; /* offsets */
} tfi_attention_layout;

static inline tfi_attention_layout tfi_attention_layout_of(int64_t max_tokens, int64_t head_size)
{
    const int64_t tokens = (max_tokens + TFI_ATTENTION_PAD - 1) / TFI_ATTENTION_PAD * TFI_ATTENTION_PAD;
    const int64_t width = (head_size + 15) / 16 * 16; /* values and outputs are padded to whole vectors */
    tfi_attention_layout l;

    l.keys = 0;
    l.values = l.keys + tokens * width;
    l.queries = l.values + tokens * width;
    l.scores = l.queries + TFI_ATTENTION_ROWS * width;
    l.outputs = l.scores + TFI_ATTENTION_ROWS * (tokens < TFI_ATTENTION_KEYS ? tokens : TFI_ATTENTION_KEYS);
    l.bias = l.outputs + TFI_ATTENTION_ROWS * width;
    l.max = l.bias + TFI_ATTENTION_KEYS + TFI_ATTENTION_PAD;
    l.sum = l.max + TFI_ATTENTION_ROWS;
    l.total = l.sum + TFI_ATTENTION_ROWS;
    return l;
}

static inline int64_t tfi_attention_scratch(int64_t max_tokens, int64_t head_size)
{
    return tfi_attention_layout_of(max_tokens, head_size).total * (int64_t)sizeof(float);
}

#endif
